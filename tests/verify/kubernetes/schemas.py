"""Validates objects of Kubernetes: `schemas.py FILE`, a JSON list of {"from", "object"}.

Answers, as a JSON list of lists, what is wrong with each. The sources:
- kubernetes-validate, strict: whatever the API itself has, in the oldest and the newest version that we support;
- cloudcoil's models, made from the published definitions of cert-manager and of the Prometheus operator: fields,
  required fields and types. What a model drops, it does not know;
- the table below, for the Gateway API, CloudNativePG and RabbitMQ's operator, whose definitions no package of PyPI
  carries: written by hand after the published definitions, with the fields that we use and no others;
- promql-parser, for the queries of alerts and dashboards.
"""

import json
import re
import sys

import kubernetes_validate
import promql_parser
from cloudcoil.models.cert_manager import v1 as cert_manager
from cloudcoil.models.prometheus_operator import v1 as prometheus

VERSIONS = ("1.31", "1.37")

MODELS = {
    "cert-manager.io/v1": cert_manager,
    "monitoring.coreos.com/v1": prometheus,
}

# Field to type; `[]` is each entry of a list, `*` any key.
TABLE = {
    "gateway.networking.k8s.io/v1/HTTPRoute": {
        "spec.parentRefs[].name": str,
        "spec.parentRefs[].namespace": str,
        "spec.parentRefs[].sectionName": str,
        "spec.hostnames[]": str,
        "spec.rules[].matches[].path.type": str,
        "spec.rules[].matches[].path.value": str,
        "spec.rules[].backendRefs[].name": str,
        "spec.rules[].backendRefs[].port": int,
    },
    "postgresql.cnpg.io/v1/Cluster": {
        "spec.instances": int,
        "spec.imageName": str,
        "spec.primaryUpdateStrategy": str,
        "spec.storage.size": str,
        "spec.postgresql.parameters.*": str,
        "spec.postgresql.synchronous.method": str,
        "spec.postgresql.synchronous.number": int,
        "spec.postgresql.synchronous.dataDurability": str,
        "spec.bootstrap.initdb.database": str,
        "spec.bootstrap.initdb.owner": str,
        "spec.bootstrap.initdb.encoding": str,
        "spec.bootstrap.initdb.localeCollate": str,
        "spec.bootstrap.initdb.localeCType": str,
        "spec.bootstrap.initdb.secret.name": str,
        "spec.managed.roles[].name": str,
        "spec.managed.roles[].ensure": str,
        "spec.managed.roles[].login": bool,
        "spec.managed.roles[].passwordSecret.name": str,
        "spec.affinity.enablePodAntiAffinity": bool,
        "spec.affinity.topologyKey": str,
        "spec.affinity.podAntiAffinityType": str,
        "spec.resources.requests.*": str,
        "spec.resources.limits.*": str,
    },
    "postgresql.cnpg.io/v1/Database": {
        "spec.name": str,
        "spec.owner": str,
        "spec.ensure": str,
        "spec.encoding": str,
        "spec.localeCollate": str,
        "spec.localeCType": str,
        "spec.template": str,
        "spec.cluster.name": str,
    },
    "rabbitmq.com/v1beta1/RabbitmqCluster": {
        "spec.replicas": int,
        "spec.image": str,
        "spec.persistence.storage": str,
        "spec.secretBackend.externalSecret.name": str,
        "spec.tls.secretName": str,
        "spec.tls.disableNonTLSListeners": bool,
        "spec.rabbitmq.additionalConfig": str,
        "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[].topologyKey": str,
        "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[].labelSelector.matchLabels.*": str,
        "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[].weight": int,
        "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[].podAffinityTerm.topologyKey": str,
        "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[].podAffinityTerm.labelSelector.matchLabels.*": str,
        "spec.override.statefulSet.spec.template.spec.securityContext.runAsNonRoot": bool,
        "spec.override.statefulSet.spec.template.spec.securityContext.runAsUser": int,
        "spec.override.statefulSet.spec.template.spec.securityContext.runAsGroup": int,
        "spec.override.statefulSet.spec.template.spec.securityContext.fsGroup": int,
        "spec.override.statefulSet.spec.template.spec.securityContext.seccompProfile.type": str,
        "spec.override.statefulSet.spec.template.spec.initContainers[].name": str,
        "spec.override.statefulSet.spec.template.spec.initContainers[].securityContext.allowPrivilegeEscalation": bool,
        "spec.override.statefulSet.spec.template.spec.initContainers[].securityContext.capabilities.drop[]": str,
        "spec.override.statefulSet.spec.template.spec.containers[].name": str,
        "spec.override.statefulSet.spec.template.spec.containers[].securityContext.allowPrivilegeEscalation": bool,
        "spec.override.statefulSet.spec.template.spec.containers[].securityContext.capabilities.drop[]": str,
        "spec.terminationGracePeriodSeconds": int,
        "spec.resources.requests.*": str,
        "spec.resources.limits.*": str,
    },
}


def leaves(value, path=""):
    """Each value that is neither an object nor a list, with its path; an empty one counts as a leaf."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for inner in value:
            yield from leaves(inner, f"{path}[]")
    else:
        yield path, value


def by_table(table, thing):
    for path, value in leaves({"spec": thing.get("spec", {})}):
        maps = (kind for known, kind in table.items() if known.endswith(".*") and path.startswith(known[:-1]))
        wanted = table.get(path) or next(maps, None)
        if wanted is None:
            yield f"{path} is not in the table of fields"
        elif type(value) is not wanted:
            yield f"{path} is no {wanted.__name__}"


def by_model(module, thing):
    model = getattr(module, thing["kind"], None)
    if model is None:
        yield "no such kind"
        return
    try:
        read = model.model_validate(thing).model_dump(mode="json", by_alias=True, exclude_unset=True)
    except ValueError as error:
        yield " ".join(str(error).split())
        return
    kept = {path for path, _ in leaves(read.get("spec", {}))}
    for path, _ in leaves(thing.get("spec", {})):
        if path not in kept:
            yield f"spec.{path} is no field of {thing['kind']}"


def by_api(thing):
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(thing, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            where = ".".join(str(part) for part in error.path)
            yield f"{version}: {where}: {error.message}"
        except kubernetes_validate.SchemaNotFoundError:
            yield f"{version}: no such kind"


def queries(thing):
    """The queries of alerts and of dashboards."""
    if thing["kind"] == "PrometheusRule":
        for group in thing["spec"]["groups"]:
            for rule in group["rules"]:
                yield rule["alert"], rule["expr"]
    for name, text in (thing.get("data") or {}).items() if thing["kind"] == "ConfigMap" else ():
        if name.endswith(".json"):
            for panel in json.loads(text)["panels"]:
                for target in panel["targets"]:
                    # Grafana fills its variables in.
                    yield panel["title"], re.sub(r"\$__rate_interval", "5m", target["expr"])


def wrong(thing):
    kind = f"{thing['apiVersion']}/{thing['kind']}"
    if kind in TABLE:
        yield from by_table(TABLE[kind], thing)
    elif thing["apiVersion"] in MODELS:
        yield from by_model(MODELS[thing["apiVersion"]], thing)
    else:
        yield from by_api(thing)
    for name, query in queries(thing):
        try:
            promql_parser.parse(query)
        except ValueError as error:
            yield f"{name}: {error}"


with open(sys.argv[1], encoding="utf-8") as file:
    json.dump([list(wrong(asked["object"])) for asked in json.load(file)], sys.stdout)
