//! Who a client is: API keys against a file of their hashes, read again when it changes.
//!
//! A key is 256 random bits, so a plain SHA-256 of it is safe to keep: there is nothing to guess that a
//! slow hash would protect. Keys come as `Authorization: Bearer <key>` or `x-api-key: <key>`.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use http::{HeaderMap, header};
use mesh::{Audience, Principal};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio_util::sync::CancellationToken;

use crate::{config::KeysConfig, error::Refusal};
use http::StatusCode;
use tonic::Code;

/// The scope that methods of the audience OPERATOR ask for.
pub(crate) const OPERATOR: &str = "operator";
/// The longest key file, in bytes.
const FILE_BYTES_MAX: usize = 4 << 20;
const HASH_BYTES: usize = 32;

/// The keys that are known; `None` inside: there is no key file, and everybody may do everything.
#[derive(Clone)]
pub(crate) struct Keys(Option<Arc<ArcSwap<KeySet>>>);

#[derive(Debug)]
struct KeySet {
    /// What the file held, to see whether it has changed.
    source: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    hash: [u8; HASH_BYTES],
    principal: Principal,
}

/// Why a key file is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("key file \"{}\" cannot be read", path.display())]
    Read {
        /// As configured.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It says something that is not a list of keys.
    #[error("key file \"{}\": {reason}", path.display())]
    Content {
        /// As configured.
        path: PathBuf,
        /// What and where.
        reason: String,
    },
}

/// The file as TOML: `[[key]]` tables.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    #[serde(default)]
    key: Vec<KeyTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyTable {
    /// Who the key speaks for.
    principal: String,
    /// What they may do beyond PUBLIC methods.
    #[serde(default)]
    scopes: Vec<String>,
    /// SHA-256 of the key, in hexadecimal digits.
    sha256: String,
    /// When it was made; for people.
    #[serde(default, rename = "created")]
    _created: Option<toml::Value>,
}

impl Keys {
    /// Reads the file, if one is configured. A bad file at the start is an error.
    pub(crate) fn load(config: &KeysConfig) -> Result<Self, KeyFileError> {
        let Some(path) = &config.file else {
            return Ok(Self(None));
        };
        let set = parse(path, read(path)?)?;
        tracing::info!(file = %path.display(), keys = set.entries.len(), "API keys are loaded");
        Ok(Self(Some(Arc::new(ArcSwap::from_pointee(set)))))
    }

    /// Whether there is no key file.
    pub(crate) fn is_open(&self) -> bool {
        self.0.is_none()
    }

    /// Looks at the file now and then. A bad one is reported and the keys stay as they were.
    pub(crate) async fn reload(self, config: KeysConfig, shutdown: CancellationToken) {
        let Some(path) = config.file else { return };
        let interval = Duration::from_millis(config.reload_interval_ms);
        let mut complaint = None;
        while shutdown
            .run_until_cancelled(tokio::time::sleep(interval))
            .await
            .is_some()
        {
            let looking = path.clone();
            let Ok(found) = tokio::task::spawn_blocking(move || read(&looking)).await else {
                continue;
            };
            let next = self.look(&path, found);
            if next != complaint
                && let Some(text) = &next
            {
                tracing::error!(reason = text, "API keys stay as they were");
            }
            complaint = next;
        }
    }

    /// Takes over what the file says now; what is wrong with it, if anything is.
    fn look(&self, path: &Path, found: Result<Vec<u8>, KeyFileError>) -> Option<String> {
        let keys = self.0.as_ref()?;
        let set = match found {
            Ok(source) if source == keys.load().source => return None,
            Ok(source) => parse(path, source),
            Err(error) => Err(error),
        };
        match set {
            Ok(set) => {
                tracing::info!(file = %path.display(), keys = set.entries.len(), "API keys are reloaded");
                keys.store(Arc::new(set));
                None
            }
            Err(error) => Some(error.to_string()),
        }
    }

    /// Who sends a request, for a method of this audience.
    pub(crate) fn authenticate(
        &self,
        audience: Audience,
        headers: &HeaderMap,
    ) -> Result<Principal, Refusal> {
        // Such a method verifies its callers itself; whatever they send is not for us to judge.
        if audience == Audience::Anyone {
            return Ok(Principal::anonymous());
        }
        let Some(keys) = &self.0 else {
            return Ok(Principal::new(Principal::ANONYMOUS, [OPERATOR]));
        };
        let presented = presented(headers)?;
        let hash: [u8; HASH_BYTES] = Sha256::digest(presented.as_bytes()).into();
        let keys = keys.load();
        // Every entry is compared, in constant time: the time taken tells nothing.
        let mut found = None;
        for entry in &keys.entries {
            if bool::from(entry.hash.ct_eq(&hash)) {
                found = Some(entry.principal.clone());
            }
        }
        let principal =
            found.ok_or_else(|| Refusal::unauthenticated("the API key is not known"))?;
        if audience == Audience::Operator && !principal.has_scope(OPERATOR) {
            let message = format!("this needs an API key with the scope `{OPERATOR}`");
            let http = StatusCode::FORBIDDEN;
            return Err(Refusal::new(
                http,
                Code::PermissionDenied,
                "SCOPE_MISSING",
                message,
            ));
        }
        Ok(principal)
    }
}

/// The key that a request shows.
fn presented(headers: &HeaderMap) -> Result<&str, Refusal> {
    const HOW: &str = "this needs an API key: `Authorization: Bearer <key>`";
    let bearer = match headers.get(header::AUTHORIZATION) {
        None => None,
        Some(value) => {
            let text = value.to_str().map_err(|_| Refusal::unauthenticated(HOW))?;
            let (scheme, key) = text.split_once(' ').unwrap_or((text, ""));
            if !scheme.eq_ignore_ascii_case("bearer") {
                return Err(Refusal::unauthenticated(HOW));
            }
            Some(key.trim())
        }
    };
    let plain = headers
        .get("x-api-key")
        .and_then(|value| value.to_str().ok())
        .map(str::trim);
    match (bearer, plain) {
        (Some(a), Some(b)) if a != b => Err(Refusal::unauthenticated(
            "Authorization and x-api-key show different keys",
        )),
        (Some(key), _) | (None, Some(key)) if !key.is_empty() => Ok(key),
        _ => Err(Refusal::unauthenticated(HOW)),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, KeyFileError> {
    std::fs::read(path).map_err(|source| KeyFileError::Read {
        path: path.to_owned(),
        source,
    })
}

fn parse(path: &Path, source: Vec<u8>) -> Result<KeySet, KeyFileError> {
    let error = |reason: String| KeyFileError::Content {
        path: path.to_owned(),
        reason,
    };
    if source.len() > FILE_BYTES_MAX {
        return Err(error(format!("longer than {FILE_BYTES_MAX} bytes")));
    }
    let text = std::str::from_utf8(&source).map_err(|e| error(e.to_string()))?;
    let file: KeyFile = toml::from_str(text).map_err(|e| {
        let line = e
            .span()
            .map_or(0, |span| text[..span.start].lines().count().max(1));
        error(format!("line {line}: {}", e.message()))
    })?;
    let mut seen = BTreeSet::new();
    let mut entries = Vec::with_capacity(file.key.len());
    for (i, table) in file.key.into_iter().enumerate() {
        let at = format!("key[{i}]");
        if table.principal.is_empty() || table.principal == Principal::ANONYMOUS {
            return Err(error(format!(
                "{at}.principal must be a name other than `anonymous`"
            )));
        }
        let mut hash = [0; HASH_BYTES];
        hex::decode_to_slice(&table.sha256, &mut hash)
            .map_err(|_| error(format!("{at}.sha256 must be 64 hexadecimal digits")))?;
        if !seen.insert(hash) {
            return Err(error(format!("{at}.sha256 occurs twice")));
        }
        entries.push(Entry {
            hash,
            principal: Principal::new(table.principal, table.scopes),
        });
    }
    Ok(KeySet { source, entries })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Result<Keys, KeyFileError> {
        let set = parse(Path::new("keys.toml"), text.as_bytes().to_vec())?;
        Ok(Keys(Some(Arc::new(ArcSwap::from_pointee(set)))))
    }

    fn entry(principal: &str, scopes: &str, key: &str) -> String {
        let hash = hex::encode(Sha256::digest(key.as_bytes()));
        format!("[[key]]\nprincipal = \"{principal}\"\nscopes = [{scopes}]\nsha256 = \"{hash}\"\n")
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn keys_name_their_principal_and_scopes() {
        let text = entry("shop", "", "k-shop") + &entry("boss", "\"operator\"", "k-boss");
        let keys = keys(&text).unwrap();
        let name = |audience, pairs: &[(&'static str, &str)]| match keys
            .authenticate(audience, &headers(pairs))
        {
            Ok(principal) => principal.name().to_owned(),
            Err(refusal) => refusal.response("r").status().as_u16().to_string(),
        };
        let public = Audience::Public;
        assert_eq!(name(public, &[("authorization", "Bearer k-shop")]), "shop");
        assert_eq!(
            name(public, &[("authorization", "bearer  k-shop ")]),
            "shop"
        );
        assert_eq!(name(public, &[("x-api-key", "k-boss")]), "boss");
        assert_eq!(
            name(
                public,
                &[("x-api-key", "k-shop"), ("authorization", "Bearer k-shop")]
            ),
            "shop"
        );
        assert_eq!(
            name(
                public,
                &[("x-api-key", "k-boss"), ("authorization", "Bearer k-shop")]
            ),
            "401"
        );
        assert_eq!(name(public, &[("authorization", "Basic k-shop")]), "401");
        assert_eq!(name(public, &[("authorization", "Bearer wrong")]), "401");
        assert_eq!(name(public, &[("authorization", "Bearer ")]), "401");
        assert_eq!(name(public, &[]), "401");
        assert_eq!(name(Audience::Operator, &[("x-api-key", "k-boss")]), "boss");
        assert_eq!(name(Audience::Operator, &[("x-api-key", "k-shop")]), "403");
        assert_eq!(name(Audience::Operator, &[("x-api-key", "wrong")]), "401");
        assert_eq!(
            name(Audience::Anyone, &[("authorization", "Basic x")]),
            "anonymous"
        );
    }

    #[test]
    fn a_file_that_turns_bad_changes_nothing_and_a_good_one_counts() {
        let path = Path::new("keys.toml");
        let keys = keys(&entry("old", "", "k-old")).unwrap();
        let opens = |key: &str| {
            keys.authenticate(Audience::Public, &headers(&[("x-api-key", key)]))
                .is_ok()
        };
        let missing = KeyFileError::Read {
            path: path.into(),
            source: io::ErrorKind::NotFound.into(),
        };
        for bad in [
            Ok(b"[[key]]\nprincipal = ".to_vec()),
            Ok(vec![0xff]),
            Err(missing),
        ] {
            let complaint = keys.look(path, bad).unwrap();
            assert!(
                complaint.starts_with("key file \"keys.toml\""),
                "{complaint}"
            );
            assert!(opens("k-old"));
        }
        assert_eq!(keys.look(path, Ok(entry("new", "", "k-new").into())), None);
        assert!(opens("k-new") && !opens("k-old"));
    }

    #[test]
    fn without_a_file_everybody_may_do_everything() {
        let keys = Keys::load(&KeysConfig::default()).unwrap();
        let principal = keys
            .authenticate(Audience::Operator, &HeaderMap::new())
            .unwrap();
        assert!(keys.is_open() && principal.is_anonymous() && principal.has_scope(OPERATOR));
    }

    #[test]
    fn bad_files_say_what_is_wrong() {
        let twice = entry("a", "", "k") + &entry("b", "", "k");
        for (text, why) in [
            (
                "[[key]]\nprincipal = 1",
                "line 2: invalid type: integer `1`, expected a string",
            ),
            (
                "[[key]]\nprincipal = \"a\"",
                "line 1: missing field `sha256`",
            ),
            (
                "[[key]]\nprincipal = \"a\"\nsha256 = \"zz\"",
                "key[0].sha256 must be 64 hexadecimal digits",
            ),
            (
                &entry("", "", "k"),
                "key[0].principal must be a name other than `anonymous`",
            ),
            (
                &entry("anonymous", "", "k"),
                "key[0].principal must be a name other than `anonymous`",
            ),
            (&twice, "key[1].sha256 occurs twice"),
        ] {
            let error = keys(text).err().unwrap().to_string();
            assert_eq!(error, format!("key file \"keys.toml\": {why}"));
        }
        assert!(keys("").is_ok());
    }
}
