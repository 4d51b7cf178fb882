//! What is handed in against a dispute: texts and files of given kinds, bounded. Files are what their first bytes say
//! they are. Deliberately missing: what a file shows; nobody here can tell.

use kernel::Invalid;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;

/// Defines an enum of names: `names!(TextKind, "…", A "a" "…", …)`.
macro_rules! names {
    ($kind:ident, $doc:literal, $($variant:ident $name:literal $of:literal),+ $(,)?) => {
        #[doc = $doc]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $kind {
            $(#[doc = $of] $variant),+
        }

        impl $kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in the store.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }

            /// Reads the name back.
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.name() == name)
            }
        }
    };
}

names!(
    TextKind, "What a text says.",
    Explanation "explanation" "What happened, in the shop's words.",
    ProductDescription "product_description" "What was sold.",
    CustomerName "customer_name" "Who bought it.",
    CustomerEmail "customer_email" "Where the customer is written to.",
    ServiceDate "service_date" "When a service was given.",
    ShippingAddress "shipping_address" "Where the goods went.",
    ShippingCarrier "shipping_carrier" "Who brought them.",
    ShippingDate "shipping_date" "When they left.",
    ShippingTrackingNumber "shipping_tracking_number" "Under which number they can be followed.",
    RefundPolicyDisclosure "refund_policy_disclosure" "How the customer was shown when money is given back.",
    RefundRefusalExplanation "refund_refusal_explanation" "Why no money was given back.",
    CancellationPolicyDisclosure "cancellation_policy_disclosure" "How the customer was shown how to cancel.",
    CancellationRebuttal "cancellation_rebuttal" "Why it was not canceled.",
    AccessActivityLog "access_activity_log" "When the customer used what was sold.",
    DuplicateChargeExplanation "duplicate_charge_explanation" "Why two charges are not the same one.",
);

names!(
    FileKind, "What a file shows.",
    Receipt "receipt" "A receipt.",
    CustomerCommunication "customer_communication" "What was written to and by the customer.",
    CustomerSignature "customer_signature" "The customer's signature.",
    ShippingDocumentation "shipping_documentation" "That the goods arrived.",
    ServiceDocumentation "service_documentation" "That a service was given.",
    RefundPolicy "refund_policy" "When money is given back.",
    CancellationPolicy "cancellation_policy" "How to cancel.",
    DuplicateChargeDocumentation "duplicate_charge_documentation" "That two charges are not the same one.",
    Other "other" "Anything else.",
);

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentType {
    /// A document.
    Pdf,
    /// A picture.
    Png,
    /// A photograph.
    Jpeg,
}

impl ContentType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pdf, Self::Png, Self::Jpeg];

    /// Its media type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pdf => "application/pdf",
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
        }
    }

    /// Reads [`ContentType::name`] back.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// How a file of it ends.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Pdf => "pdf",
            Self::Png => "png",
            Self::Jpeg => "jpg",
        }
    }

    /// What its first bytes are (ISO 32000-2, 7.5.2; PNG 3rd edition, 5.2; ISO/IEC 10918-1, B.1.1.3).
    fn magic(self) -> &'static [u8] {
        match self {
            Self::Pdf => b"%PDF-",
            Self::Png => b"\x89PNG\r\n\x1a\n",
            Self::Jpeg => b"\xff\xd8\xff",
        }
    }

    /// What a file is by its first bytes.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| bytes.starts_with(kind.magic()))
    }
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvidenceFile {
    /// What it shows.
    pub kind: FileKind,
    /// What it is.
    pub content_type: ContentType,
    /// What it is, for people.
    pub description: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// What is handed in at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Texts, each kind at most once.
    pub texts: Vec<(TextKind, String)>,
    /// Files, each kind at most once.
    pub files: Vec<EvidenceFile>,
}

/// What stays known of a part of evidence that was handed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The name of its kind.
    pub kind: String,
    /// Of a file, its media type; of a text `text/plain`.
    pub content_type: String,
    /// Of a file, what it is, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// How long it is.
    pub bytes: usize,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// How much is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvidenceRules {
    /// Files.
    pub files_max: usize,
    /// Bytes of one file.
    pub file_bytes_max: usize,
    /// Bytes of all texts and files.
    pub bytes_max: usize,
    /// Characters of one text.
    pub text_characters_max: usize,
}

/// The media type of texts.
const PLAIN: &str = "text/plain";

impl Evidence {
    /// Refuses what is nothing, too much, or twice there. Errors name the field of the request.
    pub fn check(&self, rules: &EvidenceRules) -> Result<(), Invalid> {
        if self.texts.is_empty() && self.files.is_empty() {
            return Err(Invalid::new("evidence", "must have a text or a file"));
        }
        for (kind, text) in &self.texts {
            let (field, max) = (kind.name(), rules.text_characters_max);
            kernel::text::bounded_lines(field, text, 1, max)?;
            kernel::text::refuse_card_number(field, text)?;
        }
        if self.files.len() > rules.files_max {
            let reason = format!("must have at most {} entries", rules.files_max);
            return Err(Invalid::new("files", reason));
        }
        let mut seen = BTreeSet::new();
        for (index, file) in self.files.iter().enumerate() {
            let of = |name: &str| format!("files[{index}].{name}");
            if !seen.insert(file.kind) {
                return Err(Invalid::new(of("kind"), "is there twice"));
            }
            if file.bytes.len() > rules.file_bytes_max {
                let reason = format!("must have at most {} bytes", rules.file_bytes_max);
                return Err(Invalid::new(of("data"), reason));
            }
            if ContentType::of(&file.bytes) != Some(file.content_type) {
                let reason = format!("is no {}", file.content_type.name());
                return Err(Invalid::new(of("data"), reason));
            }
        }
        if self.bytes() > rules.bytes_max {
            let reason = format!(
                "texts and files must have at most {} bytes together",
                rules.bytes_max
            );
            return Err(Invalid::new("files", reason));
        }
        Ok(())
    }

    /// Bytes of all texts and files.
    fn bytes(&self) -> usize {
        let texts = self.texts.iter().map(|(_, text)| text.len());
        let files = self.files.iter().map(|file| file.bytes.len());
        texts.chain(files).sum()
    }

    /// What stays known of it.
    pub fn kept(&self) -> Vec<Kept> {
        let texts = self.texts.iter().map(|(kind, text)| Kept {
            kind: kind.name().to_owned(),
            content_type: PLAIN.to_owned(),
            description: String::new(),
            bytes: text.len(),
            sha256: hex::encode(Sha256::digest(text.as_bytes())),
        });
        let files = self.files.iter().map(|file| Kept {
            kind: file.kind.name().to_owned(),
            content_type: file.content_type.name().to_owned(),
            description: file.description.clone(),
            bytes: file.bytes.len(),
            sha256: hex::encode(Sha256::digest(&file.bytes)),
        });
        texts.chain(files).collect()
    }

    /// Its parts as the store keeps them: kind, media type, content. Descriptions stay with what is kept.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, &'static str, &[u8])> {
        let texts = self.texts.iter();
        let texts = texts.map(|(kind, text)| (kind.name(), PLAIN, text.as_bytes()));
        let files = self.files.iter();
        texts.chain(files.map(|file| {
            let content_type = file.content_type.name();
            (file.kind.name(), content_type, file.bytes.as_slice())
        }))
    }

    /// Adds a part of [`Evidence::parts`]. False: it is none.
    pub fn add_part(&mut self, kind: &str, content_type: &str, bytes: Vec<u8>) -> bool {
        if content_type == PLAIN {
            let text = TextKind::parse(kind).zip(String::from_utf8(bytes).ok());
            let known = text.is_some();
            self.texts.extend(text);
            return known;
        }
        let file = FileKind::parse(kind).zip(ContentType::parse(content_type));
        let known = file.is_some();
        self.files
            .extend(file.map(|(kind, content_type)| EvidenceFile {
                kind,
                content_type,
                description: String::new(),
                bytes,
            }));
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULES: EvidenceRules = EvidenceRules {
        files_max: 2,
        file_bytes_max: 20,
        bytes_max: 30,
        text_characters_max: 10,
    };

    fn file(kind: FileKind, bytes: &[u8]) -> EvidenceFile {
        EvidenceFile {
            kind,
            content_type: ContentType::Pdf,
            description: "d".into(),
            bytes: bytes.to_vec(),
        }
    }

    fn evidence(texts: &[(TextKind, &str)], files: Vec<EvidenceFile>) -> Evidence {
        let texts = texts.iter().map(|(kind, text)| (*kind, (*text).to_owned()));
        Evidence {
            texts: texts.collect(),
            files,
        }
    }

    fn refused(evidence: &Evidence) -> String {
        evidence.check(&RULES).unwrap_err().field
    }

    #[test]
    fn what_is_taken_and_what_is_not() {
        let why = TextKind::Explanation;
        let good = evidence(
            &[(why, "sent\nit")],
            vec![file(FileKind::Receipt, b"%PDF-1.7")],
        );
        assert_eq!(good.check(&RULES), Ok(()));
        assert_eq!(refused(&Evidence::default()), "evidence");
        assert_eq!(refused(&evidence(&[(why, "")], vec![])), "explanation");
        let long = "x".repeat(11);
        assert_eq!(refused(&evidence(&[(why, &long)], vec![])), "explanation");
        let wide = EvidenceRules {
            text_characters_max: 100,
            ..RULES
        };
        let card = evidence(&[(why, "card 4111 1111 1111 1111")], vec![]);
        assert_eq!(card.check(&wide).unwrap_err().field, "explanation");
        let twice = vec![
            file(FileKind::Receipt, b"%PDF-"),
            file(FileKind::Receipt, b"%PDF-"),
        ];
        assert_eq!(refused(&evidence(&[], twice)), "files[1].kind");
        let three = [
            FileKind::Receipt,
            FileKind::Other,
            FileKind::CustomerSignature,
        ];
        let three = three.map(|kind| file(kind, b"%PDF-")).to_vec();
        assert_eq!(refused(&evidence(&[], three)), "files");
        let large = vec![file(
            FileKind::Other,
            &[b"%PDF-".as_slice(), &[0; 16]].concat(),
        )];
        assert_eq!(refused(&evidence(&[], large)), "files[0].data");
        for bytes in [&b"\x89PNG\r\n\x1a\n"[..], b"%PD", b"", b"MZ"] {
            let other = vec![file(FileKind::Other, bytes)];
            assert_eq!(refused(&evidence(&[], other)), "files[0].data", "{bytes:?}");
        }
        let both = [FileKind::Other, FileKind::Receipt]
            .map(|kind| file(kind, &[b"%PDF-".as_slice(), &[0; 15]].concat()));
        assert_eq!(refused(&evidence(&[], both.to_vec())), "files");
    }

    #[test]
    fn files_are_known_by_their_first_bytes() {
        assert_eq!(ContentType::of(b"%PDF-2.0"), Some(ContentType::Pdf));
        let png = b"\x89PNG\r\n\x1a\nIHDR";
        assert_eq!(ContentType::of(png), Some(ContentType::Png));
        assert_eq!(
            ContentType::of(b"\xff\xd8\xff\xe0"),
            Some(ContentType::Jpeg)
        );
        assert_eq!(ContentType::of(b"GIF89a"), None);
        for kind in ContentType::ALL {
            assert_eq!(ContentType::parse(kind.name()), Some(kind));
        }
    }

    #[test]
    fn what_stays_known_is_no_content() {
        let of = evidence(
            &[(TextKind::CustomerName, "Ann")],
            vec![file(FileKind::Other, b"%PDF-")],
        );
        let kept = of.kept();
        assert_eq!((kept[0].kind.as_str(), kept[0].bytes), ("customer_name", 3));
        // printf Ann | sha256sum
        let hash = "17239b6e250110330eda64a29c610bf146f89883371fab093feda03bec61b646";
        assert_eq!(kept[0].sha256, hash);
        assert_eq!(kept[1].description, "d");
        let stored = serde_json::to_string(&kept).unwrap();
        assert!(!stored.contains("Ann"), "{stored}");
    }

    proptest! {
        #[test]
        fn parts_read_back(
            texts in prop::collection::btree_map(0..TextKind::ALL.len(), ".{1,20}", 0..5),
            files in prop::collection::btree_map(0..FileKind::ALL.len(), (0..3_usize, any::<Vec<u8>>()), 0..4),
        ) {
            let texts = texts.into_iter().map(|(kind, text)| (TextKind::ALL[kind], text));
            let files = files.into_iter().map(|(kind, (content_type, bytes))| EvidenceFile {
                kind: FileKind::ALL[kind],
                content_type: ContentType::ALL[content_type],
                description: String::new(),
                bytes,
            });
            let evidence = Evidence { texts: texts.collect(), files: files.collect() };
            let mut read = Evidence::default();
            for (kind, content_type, bytes) in evidence.parts() {
                prop_assert!(read.add_part(kind, content_type, bytes.to_vec()));
            }
            prop_assert_eq!(read, evidence);
        }
    }
}
