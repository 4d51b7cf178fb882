//! The signature of Stripe's webhooks: `Stripe-Signature: t=SECONDS,v1=HEX[,v1=HEX…]`, where HEX is the HMAC-SHA256
//! of `SECONDS.BODY` under the endpoint's secret.
//!
//! Accepts exactly what Stripe's own libraries accept, which `cargo xtask verify` compares. So there is no limit
//! for a time that lies ahead: nobody without the secret can sign one.

use hmac::{Hmac, Mac as _};
use mesh_runtime::config::Secret;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// Checks a header. The reasons name no secret and nothing of the body.
pub(super) fn verify(
    header: &str,
    body: &[u8],
    secrets: &[Secret],
    tolerance_us: i64,
    now_us: i64,
) -> Result<(), &'static str> {
    const MALFORMED: &str = "the header stripe-signature is malformed";
    let parts = || header.split(',').map(|part| part.split_once('='));
    let mut names = header
        .split(',')
        .map(|part| part.split('=').next().unwrap_or_default());
    let complete = parts()
        .zip(&mut names)
        .all(|(pair, name)| pair.is_some() || !matches!(name, "t" | "v1"));
    if !complete {
        return Err(MALFORMED);
    }
    // A further equals sign ends a value.
    let values = |wanted: &'static str| {
        let named = parts().flatten().filter(move |(name, _)| *name == wanted);
        named.map(|(_, rest)| rest.split('=').next().unwrap_or_default())
    };
    let seconds = values("t").next().and_then(whole_number).ok_or(MALFORMED)?;
    let mut signed = false;
    for secret in secrets {
        let expected = sign(secret, seconds, body);
        for given in values("v1") {
            signed |= bool::from(given.as_bytes().ct_eq(expected.as_bytes()));
        }
    }
    if !signed {
        return Err("the signature does not match");
    }
    let signed_at_us = seconds.saturating_mul(1_000_000);
    if signed_at_us < now_us.saturating_sub(tolerance_us) {
        return Err("the signature is too old, or a clock is wrong");
    }
    Ok(())
}

/// The signature of a body, in hexadecimal letters.
pub(super) fn sign(secret: &Secret, seconds: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
        .expect("HMAC takes keys of any length");
    mac.update(format!("{seconds}.").as_bytes());
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

/// A whole number as Stripe's libraries read it: spaces around it, a sign, single underscores between digits.
fn whole_number(text: &str) -> Option<i64> {
    let text = text.trim_matches([' ', '\t']);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let groups_are_digits = digits
        .split('_')
        .all(|group| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit()));
    if !groups_are_digits {
        return None;
    }
    let number: i64 = digits.replace('_', "").parse().ok()?;
    Some(if negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW_US: i64 = 1_700_000_000_000_000;
    const SECONDS: i64 = 1_700_000_000;
    const TOLERANCE_US: i64 = 300_000_000;

    fn secrets() -> [Secret; 2] {
        [Secret::new("whsec_new"), Secret::new("whsec_old")]
    }

    fn header(secret: usize, body: &[u8]) -> String {
        format!("t={SECONDS},v1={}", sign(&secrets()[secret], SECONDS, body))
    }

    fn check(header: &str, body: &[u8], now_us: i64) -> Result<(), &'static str> {
        verify(header, body, &secrets(), TOLERANCE_US, now_us)
    }

    #[test]
    fn the_signature_is_the_documented_one() {
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac secret
        assert_eq!(
            sign(&Secret::new("secret"), SECONDS, b"{}"),
            "b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163"
        );
    }

    #[test]
    fn while_a_secret_is_changed_both_are_taken() {
        for secret in [0, 1] {
            assert_eq!(check(&header(secret, b"{}"), b"{}", NOW_US), Ok(()));
        }
        let several = format!("t={SECONDS},v0=x,v1=00,{}", &header(1, b"{}")[13..]);
        assert_eq!(check(&several, b"{}", NOW_US), Ok(()));
        assert!(verify(&header(0, b"{}"), b"{}", &[], TOLERANCE_US, NOW_US).is_err());
    }

    #[test]
    fn age_counts_to_the_second_and_only_backwards() {
        let signed = header(0, b"{}");
        assert_eq!(check(&signed, b"{}", NOW_US + TOLERANCE_US), Ok(()));
        let late = check(&signed, b"{}", NOW_US + TOLERANCE_US + 1);
        assert_eq!(late, Err("the signature is too old, or a clock is wrong"));
        assert_eq!(check(&signed, b"{}", NOW_US - 86_400_000_000), Ok(()));
    }

    #[test]
    fn numbers_are_read_as_stripes_libraries_do() {
        for (text, number) in [
            ("12", 12),
            (" +12\t", 12),
            ("-3", -3),
            ("1_000", 1_000),
            ("007", 7),
        ] {
            assert_eq!(whole_number(text), Some(number), "{text:?}");
        }
        for text in [
            "",
            "+",
            "1__0",
            "_1",
            "1_",
            "1.5",
            "0x1",
            "--1",
            "99999999999999999999",
        ] {
            assert_eq!(whole_number(text), None, "{text:?}");
        }
    }

    #[test]
    fn anything_unsigned_is_refused() {
        let right = header(0, b"{}");
        let signature = &right[13..];
        for wrong in [
            String::new(),
            "t=".into(),
            "t".into(),
            signature.into(),
            format!("t={SECONDS}"),
            format!("t={SECONDS},v1"),
            format!("t={SECONDS},v1,{signature}"),
            format!("t={},{signature}", SECONDS + 1),
            format!("t={SECONDS}, {signature}"),
            format!("T={SECONDS},{signature}"),
            right.to_uppercase(),
        ] {
            assert!(check(&wrong, b"{}", NOW_US).is_err(), "{wrong:?}");
        }
        assert!(check(&right, b"{ }", NOW_US).is_err());
    }

    proptest! {
        #[test]
        fn no_header_brings_it_down(header in ".{0,80}", body in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(check(&header, &body, NOW_US).is_err());
        }

        #[test]
        fn a_signed_body_is_accepted_and_any_changed_byte_refused(
            body in prop::collection::vec(any::<u8>(), 1..80), at in any::<prop::sample::Index>(), flip in 1u8..=255,
        ) {
            let signed = header(0, &body);
            prop_assert_eq!(check(&signed, &body, NOW_US), Ok(()));
            let mut changed = body.clone();
            changed[at.index(body.len())] ^= flip;
            prop_assert!(check(&signed, &changed, NOW_US).is_err());
        }

        #[test]
        fn any_changed_digit_of_the_signature_is_refused(at in 0usize..64, digit in "[0-9a-f]") {
            let signed = header(0, b"{}");
            let mut changed = signed.clone();
            let place = signed.len() - 64 + at;
            changed.replace_range(place..=place, &digit);
            prop_assert_eq!(check(&changed, b"{}", NOW_US).is_ok(), changed == signed);
        }
    }
}
