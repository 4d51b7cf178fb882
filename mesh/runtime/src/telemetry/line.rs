//! A line of the log: what tracing-subscriber writes, and after it what the line's context says.
//!
//! The context is asked when a line is written, not when a call begins: a span with the same fields would be formatted
//! for every call, and few calls write a line.

use std::fmt::{self, Display, Write as _};

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{self, Writer},
    },
    registry::LookupSpan,
};

/// Tells what a line says beside its own fields, name by name; `mesh::log_context` tells of the call being served.
pub type LineContext = fn(&mut dyn FnMut(&'static str, &dyn Display));

/// Lines of JSON; the context is the object `call`, and left out where there is none.
pub(super) fn json<S, N>(context: LineContext) -> impl FormatEvent<S, N> + Send + Sync
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    let inner = format::format().json();
    Line {
        inner: inner.flatten_event(true).with_span_list(false),
        end: "}\n",
        context,
        write: |line, context| {
            let mut before = ",\"call\":{";
            context(&mut |name, value| {
                let value = serde_json::Value::String(value.to_string());
                let _ = write!(line, "{before}\"{name}\":{value}"); // Strings take everything.
                before = ",";
            });
            if before == "," {
                line.push('}');
            }
        },
    }
}

/// Lines for people.
pub(super) fn pretty<S, N>(
    context: LineContext,
    with_ansi: bool,
) -> impl FormatEvent<S, N> + Send + Sync
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    Line {
        inner: format::format().compact().with_ansi(with_ansi),
        end: "\n",
        context,
        write: |line, context| {
            context(&mut |name, value| {
                let value = value.to_string();
                let _ = write!(line, " {name}={}", value.escape_debug()); // Strings take everything.
            });
        },
    }
}

struct Line<F> {
    inner: F,
    /// What a line ends with; the context goes before it.
    end: &'static str,
    context: LineContext,
    write: fn(&mut String, LineContext),
}

impl<S, N, F> FormatEvent<S, N> for Line<F>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        spans: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.inner
            .format_event(spans, Writer::new(&mut line), event)?;
        if line.ends_with(self.end) {
            line.truncate(line.len() - self.end.len());
            (self.write)(&mut line, self.context);
            line.push_str(self.end);
        }
        writer.write_str(&line)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::{fmt::layer, layer::SubscriberExt as _};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn call(say: &mut dyn FnMut(&'static str, &dyn Display)) {
        say("trace_id", &"4bf9");
        say("principal", &"a \"shop\"\n");
    }

    fn json_line(context: LineContext) -> serde_json::Value {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::registry().with(
            layer()
                .json()
                .event_format(json(context))
                .with_writer(move || writer.clone()),
        );
        tracing::subscriber::with_default(subscriber, || {
            tracing::info_span!("event", attempt = 2).in_scope(|| {
                tracing::info!(left = 3, "taken");
            });
        });
        serde_json::from_str(&lines.text()).unwrap()
    }

    #[test]
    fn a_line_of_json_has_its_fields_its_span_and_its_call() {
        let line = json_line(call);
        assert_eq!(
            (&line["message"], &line["left"]),
            (&"taken".into(), &3.into())
        );
        assert_eq!(line["span"]["attempt"], 2);
        let expected = serde_json::json!({"trace_id": "4bf9", "principal": "a \"shop\"\n"});
        assert_eq!(line["call"], expected);
    }

    #[test]
    fn outside_of_a_call_there_is_none() {
        let line = json_line(|_| {});
        assert_eq!(line.get("call"), None, "{line}");
    }

    #[test]
    fn a_line_for_people_ends_with_its_call() {
        let lines = Lines::default();
        let writer = lines.clone();
        let format = layer()
            .event_format(pretty(call, false))
            .with_ansi(false)
            .with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(format);
        tracing::subscriber::with_default(subscriber, || tracing::info!(left = 3, "taken"));
        let text = lines.text();
        assert!(
            text.contains(r#"taken left=3 trace_id=4bf9 principal=a \"shop\"\n"#),
            "{text}"
        );
        assert!(text.ends_with('\n'), "{text:?}");
    }
}
