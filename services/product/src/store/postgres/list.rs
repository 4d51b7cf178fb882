//! Pages: a filter as SQL, a keyset for where a page begins, full-text search. A page with its products and the
//! revision that it was read at is one statement, so all of it is of one moment. No value of a request is ever
//! part of the SQL text; only names from the lists below are.

use kernel::{
    cursor::{Key, KeyKind},
    filter::{Comparison, Expr, Operator, Value},
};
use sqlx::{PgConnection, Postgres, QueryBuilder, Row as _, postgres::PgRow};

use super::{
    catalogue::{column, stored, whole},
    search,
};
use crate::{
    error::Error,
    listing::{ListQuery, Page, SearchQuery, View},
};

/// How much a hit counts in description, labels (vendor, category, tags), SKUs and title. Less is better, as
/// for the pages of the other store.
const SCORE: &str = "(-ts_rank('{0.1, 0.4, 0.8, 1.0}', words, asked))::float8";
const SOLD: &str =
    "coalesce((SELECT sum(quantity) FROM product_sales WHERE product_id = p.id), 0)::bigint";

/// After the rows of a page: their products, in the page's order. Without a page there is one row without a product.
const SHOW: &str = concat!(
    ") SELECT state.last_revision, page.*, shown.* FROM watch_state state \
     LEFT JOIN (SELECT row_number() OVER () AS place, ordered.* FROM ordered) page ON true \
     LEFT JOIN LATERAL (SELECT ",
    whole!(),
    " FROM product p WHERE p.seq = page.page_seq) shown ON true ORDER BY page.place"
);

/// A page of the catalogue.
pub(super) async fn list(
    connection: &mut PgConnection,
    query: &ListQuery,
    now_us: i64,
) -> Result<Page, Error> {
    let mut sql = select(query, now_us);
    let rows = sql.build().fetch_all(connection).await?;
    page(rows, query.page_size, |last| {
        Ok(query.token(&keys(last, &query.key_kinds())?))
    })
}

/// A page of what matches a query.
pub(super) async fn search(
    connection: &mut PgConnection,
    query: &SearchQuery,
    now_us: i64,
) -> Result<Page, Error> {
    let mut sql = begin(now_us);
    sql.push("SELECT seq AS page_seq, score FROM (SELECT seq, ")
        .push(SCORE)
        .push(" AS score FROM product_search, CAST(")
        .push_bind(search::query(&query.query))
        .push(" AS tsquery) asked WHERE words @@ asked) hit");
    if let Some((score, seq)) = query.after {
        sql.push(" WHERE (score, seq) > (").push_bind(score);
        sql.push(", ").push_bind(seq).push(")");
    }
    sql.push(" ORDER BY score, seq LIMIT ")
        .push_bind(limit(query.page_size))
        .push(SHOW);
    let rows = sql.build().fetch_all(connection).await?;
    page(rows, query.page_size, |last| {
        Ok(query.token(column(last, "score")?, column(last, "page_seq")?))
    })
}

/// `$1` is now, which [`SHOW`] needs.
fn begin(now_us: i64) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new("WITH moment AS (SELECT ");
    sql.push_bind(now_us).push("::bigint), ordered AS (");
    sql
}

/// One row more than the page has, to see whether there is another page.
fn limit(page_size: usize) -> i64 {
    i64::try_from(page_size + 1).unwrap_or(i64::MAX)
}

fn page(
    mut rows: Vec<PgRow>,
    page_size: usize,
    token: impl Fn(&PgRow) -> Result<String, Error>,
) -> Result<Page, Error> {
    let revision = match rows.first() {
        Some(row) => column(row, "last_revision")?,
        None => 0,
    };
    rows.retain(|row| matches!(row.try_get::<Option<i64>, _>("page_seq"), Ok(Some(_))));
    let more = rows.len() > page_size;
    rows.truncate(page_size);
    let next_page_token = match rows.last() {
        Some(last) if more => token(last)?,
        _ => String::new(),
    };
    let view = |row| Ok(stored(row)?.view);
    Ok(Page {
        views: rows
            .iter()
            .map(view)
            .collect::<Result<Vec<View>, Error>>()?,
        next_page_token,
        revision,
    })
}

fn select(query: &ListQuery, now_us: i64) -> QueryBuilder<Postgres> {
    let mut sql = begin(now_us);
    sql.push("SELECT p.seq AS page_seq");
    for (index, order) in query.orders.iter().enumerate() {
        sql.push(", ")
            .push(expression(order.column))
            .push(format!(" AS key{index}"));
    }
    sql.push(" FROM product p WHERE ");
    sql.push(if query.show_deleted {
        "true"
    } else {
        "p.deleted_at_us IS NULL"
    });
    if let Some(filter) = &query.filter {
        sql.push(" AND ");
        push_filter(&mut sql, filter);
    }
    let mut columns: Vec<(&str, bool)> = query
        .orders
        .iter()
        .map(|order| (expression(order.column), order.descending))
        .collect();
    columns.push(("p.seq", query.seq_descends()));
    if let Some(after) = &query.after {
        sql.push(" AND ");
        if columns
            .iter()
            .all(|(_, descends)| *descends == columns[0].1)
        {
            push_after_row(&mut sql, &columns, after);
        } else {
            push_after(&mut sql, &columns, after);
        }
    }
    sql.push(" ORDER BY ");
    for (index, (column, descending)) in columns.iter().enumerate() {
        sql.push(if index == 0 { "" } else { ", " }).push(*column);
        sql.push(if *descending { " DESC" } else { "" });
    }
    sql.push(" LIMIT ")
        .push_bind(limit(query.page_size))
        .push(SHOW);
    sql
}

/// `(a, b, …) > (?, ?, …)`: one range of an index, where all columns go in one direction.
fn push_after_row(sql: &mut QueryBuilder<Postgres>, columns: &[(&str, bool)], keys: &[Key]) {
    sql.push("(");
    for (index, (column, _)) in columns.iter().enumerate() {
        sql.push(if index == 0 { "" } else { ", " }).push(*column);
    }
    sql.push(if columns[0].1 { ") < (" } else { ") > (" });
    for (index, key) in keys.iter().enumerate() {
        sql.push(if index == 0 { "" } else { ", " });
        push_key(sql, key);
    }
    sql.push(")");
}

/// `(a > ? OR (a = ? AND (b < ? OR …)))`: SQL's row comparison knows one direction only.
fn push_after(sql: &mut QueryBuilder<Postgres>, columns: &[(&str, bool)], keys: &[Key]) {
    let Some((((column, descending), columns), (key, keys))) =
        columns.split_first().zip(keys.split_first())
    else {
        sql.push("false");
        return;
    };
    sql.push("(")
        .push(*column)
        .push(if *descending { " < " } else { " > " });
    push_key(sql, key);
    if !columns.is_empty() {
        sql.push(" OR (").push(*column).push(" = ");
        push_key(sql, key);
        sql.push(" AND ");
        push_after(sql, columns, keys);
        sql.push(")");
    }
    sql.push(")");
}

fn push_key(sql: &mut QueryBuilder<Postgres>, key: &Key) {
    match key {
        Key::Text(text) => sql.push_bind(text.clone()),
        Key::Integer(number) => sql.push_bind(*number),
    };
}

fn keys(row: &PgRow, kinds: &[KeyKind]) -> Result<Vec<Key>, Error> {
    let last = kinds.len() - 1;
    let key = |(index, kind): (usize, &KeyKind)| {
        let name = if index == last {
            "page_seq".to_owned()
        } else {
            format!("key{index}")
        };
        Ok(match kind {
            KeyKind::Text => Key::Text(column(row, &name)?),
            KeyKind::Integer => Key::Integer(column(row, &name)?),
        })
    };
    kinds.iter().enumerate().map(key).collect()
}

/// What a name of the contract is here.
fn expression(name: &str) -> &'static str {
    match name {
        "create_time" => "p.created_at_us",
        "update_time" => "p.updated_at_us",
        "title" => "p.title",
        "category" => "p.category",
        "vendor" => "p.vendor",
        "handle" => "p.handle",
        "status" => "p.status",
        "sold_quantity" => SOLD,
        // The lists in `listing.rs` hold nothing else; a test goes through them.
        _ => "NULL",
    }
}

fn push_filter(sql: &mut QueryBuilder<Postgres>, expr: &Expr) {
    match expr {
        Expr::And(parts) => push_joined(sql, parts, " AND "),
        Expr::Or(parts) => push_joined(sql, parts, " OR "),
        Expr::Not(inner) => {
            sql.push("NOT ");
            push_filter(sql, inner);
        }
        Expr::Compare(comparison) => push_comparison(sql, comparison),
    }
}

fn push_joined(sql: &mut QueryBuilder<Postgres>, parts: &[Expr], by: &str) {
    sql.push("(");
    for (index, part) in parts.iter().enumerate() {
        sql.push(if index == 0 { "" } else { by });
        push_filter(sql, part);
    }
    sql.push(")");
}

fn push_comparison(sql: &mut QueryBuilder<Postgres>, comparison: &Comparison) {
    let elements = match comparison.field {
        "tags" => Some(("p.tags @> ARRAY[", "]")),
        "sku" => Some((
            "EXISTS (SELECT FROM variant v WHERE v.product_id = p.id AND v.sku = ",
            ")",
        )),
        _ => None,
    };
    if let Some((has, end)) = elements {
        // `=` and `:` say the same of a list: it has this element.
        let negated = comparison.operator == Operator::NotEqual;
        sql.push(if negated { "NOT " } else { "" }).push(has);
        push_value(sql, &comparison.value);
        sql.push(end);
        return;
    }
    sql.push(expression(comparison.field));
    let operator = match comparison.operator {
        Operator::Has => {
            sql.push(" LIKE "); // With trigrams, unlike `strpos`.
            push_contains(sql, &comparison.value);
            return;
        }
        Operator::Equal => " = ",
        Operator::NotEqual => " <> ",
        Operator::Less => " < ",
        Operator::LessOrEqual => " <= ",
        Operator::Greater => " > ",
        Operator::GreaterOrEqual => " >= ",
    };
    sql.push(operator);
    push_value(sql, &comparison.value);
}

fn push_value(sql: &mut QueryBuilder<Postgres>, value: &Value) {
    match value {
        Value::Text(text) => sql.push_bind(text.clone()),
        Value::Number(number) | Value::Time(number) => sql.push_bind(*number),
        Value::Enum(name) => sql.push_bind(*name),
    };
}

/// A pattern for `LIKE` that finds this text anywhere.
fn push_contains(sql: &mut QueryBuilder<Postgres>, value: &Value) {
    let Value::Text(text) = value else {
        push_value(sql, value); // Only texts can be asked for what they contain.
        return;
    };
    let mut pattern = String::from("%");
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    sql.push_bind(pattern);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::{FILTER_FIELDS, ORDER_COLUMNS};

    #[test]
    fn every_name_of_the_contract_is_known_here() {
        for name in ORDER_COLUMNS
            .iter()
            .copied()
            .chain(FILTER_FIELDS.iter().map(|f| f.name))
        {
            assert!(
                matches!(name, "tags" | "sku") || expression(name) != "NULL",
                "{name}"
            );
        }
    }

    #[test]
    fn values_never_become_sql() {
        let filter =
            "title = \"x' OR 1=1 --\" AND NOT (tags : \"zzz\" OR sku = zzz) AND title : zzz";
        for order_by in ["title, sold_quantity desc", "title, sold_quantity"] {
            let query = ListQuery::parse(10, "", filter, order_by, false).unwrap();
            let keys = [Key::Text("zzz".into()), Key::Integer(1), Key::Integer(2)];
            let query = ListQuery::parse(10, &query.token(&keys), filter, order_by, false).unwrap();
            let sql = select(&query, 0);
            let sql = sql.sql();
            let text = sql.as_str();
            assert!(!text.contains("1=1") && !text.contains("zzz"), "{text}");
        }
    }
}
