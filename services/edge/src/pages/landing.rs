//! The landing page: what is here, by service, as a page of its own without scripts, fonts or images.

use std::fmt::Write as _;

use mesh::Audience;
use mesh_transcode::{Endpoint, Router, Schema};

use crate::config::Config;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5b6577; --line: #e3e7ee; --paper: #fbfcfe;
  --card: #fff; --accent: #3457d5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ecf4; --soft: #9aa5b8; --line: #2a3140;
  --paper: #12161e; --card: #191f2a; --accent: #8ea6ff; } }
* { box-sizing: border-box; margin: 0; }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 62rem; margin: 0 auto; padding: 3rem 1.25rem 4rem; }
h1 { font-size: 2rem; letter-spacing: -.02em; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .25rem; }
p { color: var(--soft); max-width: 46rem; }
nav { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1.4rem 0 0; }
nav a { border: 1px solid var(--line); background: var(--card); border-radius: .5rem; padding: .45rem .9rem;
  color: var(--accent); text-decoration: none; font-weight: 550; }
nav a:first-child { background: var(--accent); border-color: var(--accent); color: var(--card); }
ul { list-style: none; padding: 0; margin-top: .9rem; border: 1px solid var(--line); border-radius: .6rem;
  background: var(--card); overflow: hidden; }
li { display: grid; grid-template-columns: 4.2rem minmax(0, 1fr) auto; gap: .1rem .8rem; align-items: baseline;
  padding: .55rem .9rem; border-top: 1px solid var(--line); }
li:first-child { border-top: 0; }
code { font: .88rem ui-monospace, monospace; overflow-wrap: anywhere; }
.verb { font: 650 .72rem ui-monospace, monospace; color: var(--accent); }
.what { grid-column: 2; color: var(--soft); font-size: .9rem; }
.who { color: var(--soft); font-size: .78rem; }
";

/// The page as HTML.
pub(super) fn render(
    config: &Config,
    schema: &Schema,
    router: &Router,
    audience: &dyn Fn(&str) -> Audience,
) -> String {
    let title = escape(&config.api.title);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head><body>\n\
         <h1>{title}</h1>\n<p>{}</p>\n<nav><a href=\"/docs\">Documentation</a>\
         <a href=\"/openapi.json\">OpenAPI</a><a href=\"/healthz\">Health</a></nav>\n",
        prose(&config.api.description)
    );
    let mut service = "";
    for endpoint in router.endpoints() {
        let rpc = endpoint.rpc();
        if rpc.service() != service {
            if !service.is_empty() {
                html.push_str("</ul>\n");
            }
            service = rpc.service();
            let comment = schema.service_comment(service);
            let lead = comment.split("\n\n").next().unwrap_or_default();
            push(
                &mut html,
                format_args!(
                    "<h2>{}</h2>\n<p>{}</p>\n<ul>\n",
                    escape(service),
                    prose(lead)
                ),
            );
        }
        entry(&mut html, endpoint, audience(rpc.path()));
    }
    html.push_str(if service.is_empty() {
        "</body></html>\n"
    } else {
        "</ul>\n</body></html>\n"
    });
    html
}

fn entry(html: &mut String, endpoint: &Endpoint, audience: Audience) {
    let rpc = endpoint.rpc();
    let who = match audience {
        Audience::Operator => "operator",
        Audience::Anyone => "no key",
        Audience::Public | Audience::Internal => "",
    };
    push(
        html,
        format_args!(
            "<li><span class=\"verb\">{}</span><code>{}</code><span class=\"who\">{who}</span>\
             <span class=\"what\">{}</span></li>\n",
            escape(endpoint.verb()),
            escape(endpoint.path_template()),
            prose(rpc.summary()),
        ),
    );
}

fn push(html: &mut String, text: std::fmt::Arguments<'_>) {
    html.write_fmt(text).expect("a String takes everything");
}

/// Text of a comment, where backticks mark code.
fn prose(text: &str) -> String {
    let pieces = text.split('`').enumerate().map(|(i, piece)| {
        let piece = escape(piece);
        if i % 2 == 1 {
            format!("<code>{piece}</code>")
        } else {
            piece
        }
    });
    pieces.collect()
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_the_contract_is_text_on_the_page() {
        assert_eq!(prose("with `a<b` it"), "with <code>a&lt;b</code> it");
        assert_eq!(
            escape("<a href=\"x\">'&'</a>"),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;"
        );
    }
}
