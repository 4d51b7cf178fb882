//! Pages: a filter as SQL, a keyset for where a page begins, full-text search. No value of a request
//! is ever part of the SQL text; only names from the lists below are.

use std::collections::HashMap;

use kernel::{
    cursor::{Key, KeyKind},
    filter::{Comparison, Expr, Operator, Value},
};
use sqlx::{QueryBuilder, Row as _, Sqlite, sqlite::SqliteRow};

use super::{
    Connection,
    catalogue::{self, Wanted},
    corrupt, watch_log,
};
use crate::{
    error::Error,
    listing::{ListQuery, Page, SearchQuery, View},
    search::{Phrase, Query},
};

/// How much a hit counts in title, SKUs, labels (vendor, category, tags) and description.
const SCORE: &str = "bm25(product_search, 10.0, 8.0, 4.0, 1.0)";
const SOLD: &str = "coalesce((SELECT sum(quantity) FROM product_sales WHERE product_id = p.id), 0)";

/// A page of the catalogue.
pub(super) async fn list(
    connection: &mut Connection,
    query: &ListQuery,
    now_us: i64,
) -> Result<Page, Error> {
    let revision = watch_log::last(connection).await?;
    let mut rows = select(query).build().fetch_all(&mut *connection).await?;
    let more = rows.len() > query.page_size;
    rows.truncate(query.page_size);
    let next_page_token = match rows.last() {
        Some(last) if more => query.token(&keys(last, &query.key_kinds())?),
        _ => String::new(),
    };
    let views = views(connection, &rows, now_us).await?;
    Ok(Page {
        views,
        next_page_token,
        revision,
    })
}

/// A page of what matches a query.
pub(super) async fn search(
    connection: &mut Connection,
    query: &SearchQuery,
    now_us: i64,
) -> Result<Page, Error> {
    let revision = watch_log::last(connection).await?;
    let mut sql = QueryBuilder::<Sqlite>::new("SELECT seq, score FROM (SELECT rowid AS seq, ");
    sql.push(SCORE)
        .push(" AS score FROM product_search WHERE product_search MATCH ");
    sql.push_bind(expression_of(&query.query)).push(")");
    if let Some((score, seq)) = query.after {
        sql.push(" WHERE score > ").push_bind(score);
        sql.push(" OR score = ")
            .push_bind(score)
            .push(" AND seq > ")
            .push_bind(seq);
    }
    sql.push(" ORDER BY score, seq LIMIT ")
        .push_bind(limit(query.page_size));
    let mut rows = sql.build().fetch_all(&mut *connection).await?;
    let more = rows.len() > query.page_size;
    rows.truncate(query.page_size);
    let next_page_token = match rows.last() {
        Some(last) if more => query.token(last.try_get("score")?, last.try_get("seq")?),
        _ => String::new(),
    };
    let views = views(connection, &rows, now_us).await?;
    Ok(Page {
        views,
        next_page_token,
        revision,
    })
}

/// A query in the language of FTS5: every phrase in quotes, all of them joined by AND.
fn expression_of(query: &Query) -> String {
    let phrase = |phrase: &Phrase| {
        let star = if phrase.prefix { "*" } else { "" };
        format!("\"{}\"{star}", phrase.tokens.join(" "))
    };
    let phrases: Vec<String> = query.phrases.iter().map(phrase).collect();
    phrases.join(" AND ")
}

/// One row more than the page has, to see whether there is another page.
fn limit(page_size: usize) -> i64 {
    i64::try_from(page_size + 1).unwrap_or(i64::MAX)
}

/// The products of rows with a `seq`, in the order of the rows.
async fn views(
    connection: &mut Connection,
    rows: &[SqliteRow],
    now_us: i64,
) -> Result<Vec<View>, Error> {
    let seqs: Vec<i64> = rows
        .iter()
        .map(|row| row.try_get("seq"))
        .collect::<Result<_, _>>()?;
    let list = serde_json::Value::from(seqs.clone()).to_string();
    let found = catalogue::load(connection, Wanted::Seqs(list), now_us).await?;
    let mut found: HashMap<i64, View> = found
        .into_iter()
        .map(|stored| (stored.seq, stored.view))
        .collect();
    seqs.iter()
        .map(|seq| found.remove(seq).ok_or_else(|| corrupt("search index")))
        .collect()
}

fn select(query: &ListQuery) -> QueryBuilder<Sqlite> {
    let mut sql = QueryBuilder::new("SELECT p.seq");
    for (index, order) in query.orders.iter().enumerate() {
        sql.push(", ")
            .push(expression(order.column))
            .push(format!(" AS key{index}"));
    }
    sql.push(" FROM product p WHERE ");
    sql.push(if query.show_deleted {
        "1"
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
        push_after(&mut sql, &columns, after);
    }
    sql.push(" ORDER BY ");
    for (index, (column, descending)) in columns.iter().enumerate() {
        sql.push(if index == 0 { "" } else { ", " }).push(*column);
        sql.push(if *descending { " DESC" } else { "" });
    }
    sql.push(" LIMIT ").push_bind(limit(query.page_size));
    sql
}

/// `(a > ? OR (a = ? AND (b > ? OR …)))`: SQL's row comparison knows one direction only.
fn push_after(sql: &mut QueryBuilder<Sqlite>, columns: &[(&str, bool)], keys: &[Key]) {
    let Some((((column, descending), columns), (key, keys))) =
        columns.split_first().zip(keys.split_first())
    else {
        sql.push("0");
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

fn push_key(sql: &mut QueryBuilder<Sqlite>, key: &Key) {
    match key {
        Key::Text(text) => sql.push_bind(text.clone()),
        Key::Integer(number) => sql.push_bind(*number),
    };
}

fn keys(row: &SqliteRow, kinds: &[KeyKind]) -> Result<Vec<Key>, Error> {
    let last = kinds.len() - 1;
    let key = |(index, kind): (usize, &KeyKind)| {
        let name = if index == last {
            "seq".to_owned()
        } else {
            format!("key{index}")
        };
        Ok(match kind {
            KeyKind::Text => Key::Text(row.try_get(name.as_str())?),
            KeyKind::Integer => Key::Integer(row.try_get(name.as_str())?),
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

fn push_filter(sql: &mut QueryBuilder<Sqlite>, expr: &Expr) {
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

fn push_joined(sql: &mut QueryBuilder<Sqlite>, parts: &[Expr], by: &str) {
    sql.push("(");
    for (index, part) in parts.iter().enumerate() {
        sql.push(if index == 0 { "" } else { by });
        push_filter(sql, part);
    }
    sql.push(")");
}

fn push_comparison(sql: &mut QueryBuilder<Sqlite>, comparison: &Comparison) {
    let elements = match comparison.field {
        "tags" => Some("(SELECT 1 FROM json_each(p.tags) e WHERE e.value = "),
        "sku" => Some("(SELECT 1 FROM variant e WHERE e.product_id = p.id AND e.sku = "),
        _ => None,
    };
    if let Some(elements) = elements {
        // `=` and `:` say the same of a list: it has this element.
        let negated = comparison.operator == Operator::NotEqual;
        sql.push(if negated { "NOT EXISTS " } else { "EXISTS " })
            .push(elements);
        push_value(sql, &comparison.value);
        sql.push(")");
        return;
    }
    let column = expression(comparison.field);
    if comparison.operator == Operator::Has {
        sql.push("instr(").push(column).push(", ");
        push_value(sql, &comparison.value);
        sql.push(") > 0");
        return;
    }
    let operator = match comparison.operator {
        Operator::Equal => " = ",
        Operator::NotEqual => " <> ",
        Operator::Less => " < ",
        Operator::LessOrEqual => " <= ",
        Operator::Greater => " > ",
        Operator::GreaterOrEqual => " >= ",
        Operator::Has => unreachable!("answered above"),
    };
    sql.push(column).push(operator);
    push_value(sql, &comparison.value);
}

fn push_value(sql: &mut QueryBuilder<Sqlite>, value: &Value) {
    match value {
        Value::Text(text) => sql.push_bind(text.clone()),
        Value::Number(number) | Value::Time(number) => sql.push_bind(*number),
        Value::Enum(name) => sql.push_bind(*name),
    };
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
    fn a_query_is_phrases_joined_by_and() {
        let query = Query::parse("a\" OR 텀블러 roc").unwrap();
        let expected = "\"a\" AND \"OR\" AND \"텀블 블러\" AND \"roc\"*";
        assert_eq!(expression_of(&query), expected);
    }

    #[test]
    fn values_never_become_sql() {
        let filter = "title = \"x' OR 1=1 --\" AND NOT (tags : \"'\" OR sku = A)";
        let query = ListQuery::parse(10, "", filter, "title, sold_quantity desc", false).unwrap();
        let token = query.token(&[Key::Text("';".into()), Key::Integer(1), Key::Integer(2)]);
        let query =
            ListQuery::parse(10, &token, filter, "title, sold_quantity desc", false).unwrap();
        let sql = select(&query);
        let text = sql.sql();
        assert!(!text.as_str().contains('\''), "{text:?}");
    }
}
