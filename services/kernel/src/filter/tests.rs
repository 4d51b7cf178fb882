//! The parser through the front door.

use super::*;
use proptest::prelude::*;

const FIELDS: &[Field] = &[
    Field {
        name: "title",
        kind: Kind::Text,
        operators: Operator::TEXT,
    },
    Field {
        name: "tags",
        kind: Kind::TextList,
        operators: Operator::TEXT,
    },
    Field {
        name: "sold_quantity",
        kind: Kind::Number,
        operators: Operator::ORDERED,
    },
    Field {
        name: "create_time",
        kind: Kind::Time,
        operators: Operator::ORDERED,
    },
    Field {
        name: "status",
        kind: Kind::Enum(&["ACTIVE", "DRAFT"]),
        operators: Operator::EQUALITY,
    },
];
const AND_ONLY: Limits = Limits {
    characters_max: 1000,
    comparisons_max: 10,
    depth_max: 1,
    and_only: true,
};

fn parsed(text: &str) -> Expr {
    parse(text, FIELDS, Limits::default()).unwrap().unwrap()
}

fn reason(text: &str) -> String {
    let error = parse(text, FIELDS, Limits::default()).unwrap_err();
    assert_eq!(error.field, "filter");
    error.reason
}

fn title(value: &str) -> Expr {
    let (field, operator, value) = ("title", Operator::Equal, Value::Text(value.into()));
    Expr::Compare(Comparison {
        field,
        operator,
        value,
    })
}

fn compare(field: &'static str, operator: Operator, value: Value) -> Expr {
    Expr::Compare(Comparison {
        field,
        operator,
        value,
    })
}

#[test]
fn comparisons_are_typed() {
    assert_eq!(parse(" \t", FIELDS, Limits::default()), Ok(None));
    assert_eq!(parsed("title=Rock"), title("Rock"));
    assert_eq!(parsed(r#" title = "Hard \"Rock\" \\ (live)" "#), {
        title(r#"Hard "Rock" \ (live)"#)
    });
    assert_eq!(parsed("title = \"\""), title(""));
    assert_eq!(parsed("title = 록음악"), title("록음악"));
    assert_eq!(
        parsed("sold_quantity>=-5"),
        compare("sold_quantity", Operator::GreaterOrEqual, Value::Number(-5))
    );
    assert_eq!(
        parsed("create_time < 1970-01-01T00:00:01Z"),
        compare("create_time", Operator::Less, Value::Time(1_000_000))
    );
    assert_eq!(
        parsed("status != DRAFT"),
        compare("status", Operator::NotEqual, Value::Enum("DRAFT"))
    );
    assert_eq!(parsed("tags:live"), {
        compare("tags", Operator::Has, Value::Text("live".into()))
    });
}

#[test]
fn or_binds_tighter_than_and() {
    let (a, b, c) = (title("a"), title("b"), title("c"));
    assert_eq!(
        parsed("title=a AND title=b OR title=c"),
        Expr::And(vec![a.clone(), Expr::Or(vec![b.clone(), c.clone()])])
    );
    assert_eq!(
        parsed("(title=a AND title=b) OR title=c"),
        Expr::Or(vec![Expr::And(vec![a.clone(), b.clone()]), c.clone()])
    );
    assert_eq!(
        parsed("NOT title=a AND NOT(title=b OR title=c)"),
        Expr::And(vec![
            Expr::Not(Box::new(a)),
            Expr::Not(Box::new(Expr::Or(vec![b, c])))
        ])
    );
    assert_eq!(parsed("((title=AND))"), title("AND"));
}

#[test]
fn errors_say_where_and_what_was_expected() {
    let fields = "title, tags, sold_quantity, create_time, status";
    for (text, expected) in [
        (
            "price = 1",
            format!("at character 1: `price` is not a field; allowed: {fields}"),
        ),
        (
            "=",
            format!("at character 1: expected a field ({fields}), found `=`"),
        ),
        (
            "title",
            "at character 6: expected one of = != : after `title`, found the end".into(),
        ),
        (
            "title ~ x",
            "at character 7: expected one of = != : after `title`, found `~`".into(),
        ),
        (
            "title < x",
            "at character 7: `title` does not take `<`, only = != :".into(),
        ),
        (
            "title = ",
            "at character 9: expected a value for `title`, found the end".into(),
        ),
        (
            "title = a b",
            "at character 11: expected AND, OR or the end, found `b`".into(),
        ),
        ("title = a and title = b", {
            "at character 11: expected AND, OR or the end, found `and`".into()
        }),
        (
            "(title = a",
            "at character 11: expected AND, OR or `)`, found the end".into(),
        ),
        (
            "title = a)",
            "at character 10: expected AND, OR or the end, found `)`".into(),
        ),
        (
            "title = \"가",
            "at character 9: the quoted text does not end".into(),
        ),
        (r#"title = "\n""#, {
            r#"at character 10: after `\` only `"` or `\` may follow"#.into()
        }),
        (
            "title = 'a'",
            "at character 9: texts stand in double quotes".into(),
        ),
        ("title = R*", {
            "at character 9: wildcards are not supported; write a literal `*` in double quotes"
                .into()
        }),
        (
            "sold_quantity = 1.5",
            "at character 17: `sold_quantity` takes a whole number".into(),
        ),
        ("sold_quantity = 99999999999999999999", {
            "at character 17: `sold_quantity` takes a whole number".into()
        }),
        ("create_time > yesterday", {
            "at character 15: `create_time` takes an RFC 3339 time such as 2026-11-22T10:15:30Z"
                .into()
        }),
        (
            "status = active",
            "at character 10: `status` takes one of ACTIVE, DRAFT".into(),
        ),
        (
            "NOT",
            format!("at character 4: expected a field ({fields}), found the end"),
        ),
    ] {
        assert_eq!(reason(text), expected, "{text}");
    }
}

#[test]
fn limits_hold() {
    let many = |count: usize| vec!["title=a"; count].join(" AND ");
    assert!(parse(&many(20), FIELDS, Limits::default()).is_ok());
    assert_eq!(reason(&many(21)), "has more than 20 comparisons");
    let deep = |depth: usize| format!("{}title=a{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&deep(10), FIELDS, Limits::default()).is_ok());
    assert_eq!(
        reason(&deep(11)),
        "at character 12: is nested deeper than 10 levels"
    );
    assert_eq!(reason(&format!("{}title=a", "NOT ".repeat(11))), {
        "at character 44: is nested deeper than 10 levels"
    });
    assert_eq!(reason(&deep(600)), "must have at most 1000 characters");
}

#[test]
fn side_by_side_nesting_is_not_deep() {
    let text = vec!["(title=a)"; 15].join(" OR ");
    assert!(parse(&text, FIELDS, Limits::default()).is_ok());
}

#[test]
fn and_only() {
    assert!(parse("title=a AND title=b", FIELDS, AND_ONLY).is_ok());
    for (text, at, what) in [
        ("title=a OR title=b", 9, "OR"),
        ("NOT title=a", 1, "NOT"),
        ("(title=a)", 1, "parentheses"),
    ] {
        let error = parse(text, FIELDS, AND_ONLY).unwrap_err();
        let expected = format!("at character {at}: {what} cannot be used here, only AND");
        assert_eq!(error.reason, expected);
    }
}

fn any_expr() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        ".{0,8}"
            .prop_filter("NUL is refused", |text| !text.contains('\0'))
            .prop_map(|text| title(&text)),
        any::<i64>().prop_map(|n| compare("sold_quantity", Operator::Less, Value::Number(n))),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::And),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::Or),
            inner.prop_map(|expr| Expr::Not(Box::new(expr))),
        ]
    })
}

fn written(expr: &Expr) -> String {
    let joined = |parts: &[Expr], by: &str| {
        let parts: Vec<String> = parts.iter().map(|p| format!("({})", written(p))).collect();
        parts.join(by)
    };
    match expr {
        Expr::And(parts) => joined(parts, " AND "),
        Expr::Or(parts) => joined(parts, " OR "),
        Expr::Not(inner) => format!("NOT ({})", written(inner)),
        Expr::Compare(Comparison {
            field,
            operator,
            value,
        }) => {
            let value = match value {
                Value::Text(text) => text.replace('\\', r"\\").replace('"', r#"\""#),
                Value::Number(number) => number.to_string(),
                Value::Time(_) | Value::Enum(_) => unreachable!("not generated"),
            };
            format!("{field} {} \"{value}\"", operator.symbol())
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_back(expr in any_expr()) {
        let limits =
            Limits { characters_max: 100_000, comparisons_max: 1000, depth_max: 10, and_only: false };
        prop_assert_eq!(parse(&written(&expr), FIELDS, limits), Ok(Some(expr)));
    }

    #[test]
    fn any_text_is_read_without_panic(
        text in r#"(title|tags|sold_quantity|AND|OR|NOT|[ ()="\\:<>!]|.){0,30}"#,
    ) {
        let _ = parse(&text, FIELDS, Limits::default());
    }
}
