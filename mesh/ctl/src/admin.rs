//! The admin endpoint of a running service, as a client. Every error names the address that was asked.
//!
//! Deliberately without TLS and authentication, which the endpoint has neither.

use std::{fmt, str::FromStr, time::Duration};

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Response, Uri,
    body::{Bytes, Incoming},
};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::time::timeout;

/// How long a service may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// The longest line of a stream, in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Where the admin endpoint of a service is: `http://HOST:PORT`.
#[derive(Clone, Debug)]
pub(crate) struct Admin(Uri);

impl FromStr for Admin {
    type Err = String;

    fn from_str(text: &str) -> Result<Admin, String> {
        let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
        match (uri.scheme_str(), uri.authority(), uri.path()) {
            (Some("http"), Some(_), "/") if uri.query().is_none() => Ok(Admin(uri)),
            _ => Err("http://HOST:PORT is wanted".to_owned()),
        }
    }
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.to_string().trim_end_matches('/'))
    }
}

impl Admin {
    /// The page at `path`, as it is.
    pub(crate) async fn text(&self, path: &str) -> anyhow::Result<String> {
        let url = format!("{self}{path}");
        let reading = async {
            let answer = self.get(path).await?;
            whole(answer).await
        };
        let read = timeout(ANSWER_TIMEOUT, reading).await;
        let read = read.with_context(|| format!("no answer within {ANSWER_TIMEOUT:?}"));
        read.and_then(|read| read).context(url)
    }

    /// Each line of the page at `path`, as they come, until it ends or `take` fails.
    pub(crate) async fn lines(
        &self,
        path: &str,
        mut take: impl FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let url = format!("{self}{path}");
        let answered = timeout(ANSWER_TIMEOUT, self.get(path)).await;
        let answered = answered.with_context(|| format!("no answer within {ANSWER_TIMEOUT:?}"));
        let mut body = answered
            .and_then(|answered| answered)
            .with_context(|| url.clone())?
            .into_body();
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.with_context(|| format!("{url}: the stream broke"))?;
            rest.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                take(std::str::from_utf8(&line)?.trim_end())?;
            }
            if rest.len() > LINE_BYTES_MAX {
                bail!("{url}: a line is longer than {LINE_BYTES_MAX} bytes");
            }
        }
        Ok(())
    }

    async fn get(&self, path: &str) -> anyhow::Result<Response<Incoming>> {
        let authority = self.0.authority().context("it has an authority")?.clone();
        let uri = Uri::builder().scheme("http").authority(authority);
        let uri = uri.path_and_query(path).build()?;
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let answer = client.get(uri).await.context("no answer")?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let why = whole(answer).await.unwrap_or_default();
        bail!("answered {status}: {}", why.trim());
    }
}

async fn whole(answer: Response<Incoming>) -> anyhow::Result<String> {
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect();
    let body = body.await.map_err(|error| anyhow::anyhow!(error))?;
    Ok(String::from_utf8(body.to_bytes().to_vec())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_endpoint_is_a_plain_address() {
        for good in ["http://127.0.0.1:9090", "http://payment:9090/"] {
            good.parse::<Admin>().unwrap();
        }
        for bad in [
            "",
            "127.0.0.1:9090",
            "https://a:1",
            "http://a:1/metrics",
            "http://",
        ] {
            bad.parse::<Admin>().unwrap_err();
        }
    }

    #[tokio::test]
    async fn an_error_names_the_address() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let admin: Admin = format!("http://{address}").parse().unwrap();
        let error = format!("{:#}", admin.text("/mesh/calls").await.unwrap_err());
        assert!(
            error.starts_with(&format!("http://{address}/mesh/calls: no answer")),
            "{error}"
        );
        let error = format!(
            "{:#}",
            admin.lines("/mesh/tap", |_| Ok(())).await.unwrap_err()
        );
        assert!(
            error.starts_with(&format!("http://{address}/mesh/tap: no answer")),
            "{error}"
        );
    }
}
