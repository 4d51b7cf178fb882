//! Keys of providers: in the configuration, masked wherever it is shown, or in a file of their own.

use kernel::Invalid;
use mesh_runtime::config::Secret;
use std::fs;
use std::path::Path;

/// The one key at `name`, from the configuration or from its file. `why` says who needs it.
pub(super) fn one(
    name: &str,
    secret: &Secret,
    file: Option<&Path>,
    why: &str,
) -> Result<Secret, Invalid> {
    let inline = std::slice::from_ref(secret);
    let mut secrets = several(name, inline, file, why)?;
    match (secrets.pop(), secrets.is_empty()) {
        (Some(secret), true) => Ok(secret),
        _ => Err(Invalid::new(name, "must be one key")),
    }
}

/// The keys at `name`: those of the configuration, or one a line of their file. At least one.
pub(super) fn several(
    name: &str,
    secrets: &[Secret],
    file: Option<&Path>,
    why: &str,
) -> Result<Vec<Secret>, Invalid> {
    let inline: Vec<Secret> = secrets
        .iter()
        .filter(|secret| !secret.is_empty())
        .cloned()
        .collect();
    let found = match file {
        Some(_) if !inline.is_empty() => {
            let reason = format!("is set besides {name}_file: only one of them");
            return Err(Invalid::new(name, reason));
        }
        Some(file) => read(name, file)?,
        None => inline,
    };
    if found.is_empty() {
        let reason = format!("is needed, or {name}_file: {why}");
        return Err(Invalid::new(name, reason));
    }
    Ok(found)
}

fn read(name: &str, file: &Path) -> Result<Vec<Secret>, Invalid> {
    let text = fs::read_to_string(file).map_err(|error| {
        let reason = format!("\"{}\" cannot be read: {error}", file.display());
        Invalid::new(format!("{name}_file"), reason)
    })?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.map(Secret::new).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const WHY: &str = "provider \"stripe\" is configured";

    fn texts(secrets: &[Secret]) -> Vec<&str> {
        secrets.iter().map(Secret::expose).collect()
    }

    #[test]
    fn keys_come_from_the_configuration_or_from_a_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "whsec_new \n\nwhsec_old\n").unwrap();
        let inline = [Secret::new("whsec_1"), Secret::default()];
        let given = several("stripe.webhook_secrets", &inline, None, WHY).unwrap();
        assert_eq!(texts(&given), ["whsec_1"]);
        let read = several("stripe.webhook_secrets", &[], Some(file.path()), WHY).unwrap();
        assert_eq!(texts(&read), ["whsec_new", "whsec_old"]);
        let both = several("stripe.webhook_secrets", &inline, Some(file.path()), WHY);
        assert!(both.unwrap_err().to_string().contains("only one of them"));
        let two = one(
            "stripe.secret_key",
            &Secret::default(),
            Some(file.path()),
            WHY,
        );
        assert_eq!(
            two.unwrap_err().to_string(),
            "stripe.secret_key: must be one key"
        );
    }

    #[test]
    fn a_missing_key_is_named_and_a_present_one_is_not_shown() {
        let missing = one("stripe.secret_key", &Secret::default(), None, WHY).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "stripe.secret_key: is needed, or stripe.secret_key_file: provider \"stripe\" is configured"
        );
        let nowhere = one(
            "k",
            &Secret::default(),
            Some(Path::new("/nowhere/key")),
            WHY,
        );
        assert!(
            nowhere
                .unwrap_err()
                .to_string()
                .starts_with("k_file: \"/nowhere/key\" cannot be read")
        );
        let key = one("k", &Secret::new("sk_live_1"), None, WHY).unwrap();
        assert_eq!(format!("{key:?}"), "Secret(***)");
    }
}
