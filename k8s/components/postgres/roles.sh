# Read by the image's entry point when the data folder is empty: an owner and a service for each database.
for service in product payment; do
  psql --set ON_ERROR_STOP=1 --username postgres \
    --set service="$service" --set owner="${service}_owner" \
    --set service_password="$(cat "/etc/passwords/$service/password")" \
    --set owner_password="$(cat "/etc/passwords/$service-owner/password")" <<'SQL'
CREATE ROLE :"owner" LOGIN PASSWORD :'owner_password';
CREATE ROLE :"service" LOGIN PASSWORD :'service_password';
CREATE DATABASE :"service" OWNER :"owner";
SQL
done
