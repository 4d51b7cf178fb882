//! The protocol's bodies about disputes, and how they are made of the domain's types and back.

use super::messages::Money;
use crate::dispute::{
    ContentType, DisputeState, Evidence, EvidenceFile, FileKind, SeenDispute, TextKind,
};
use crate::provider::simulator::Decision;
use crate::provider::{AcceptDispute, SubmitEvidence};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kernel::Invalid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Opening {
    pub(super) charge_reference: String,
    pub(super) amount: Option<Money>,
    pub(super) inquiry: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Return {
    pub(super) reference: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Returned {
    pub(super) returned: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Opened {
    pub(super) dispute_ref: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Decided {
    pub(super) dispute_ref: String,
    pub(super) decision: Decision,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Acceptance {
    reference: String,
    dispute_ref: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Submission {
    reference: String,
    dispute_ref: String,
    texts: BTreeMap<String, String>,
    files: Vec<File>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    kind: String,
    content_type: String,
    description: String,
    data: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answered {
    pub(super) dispute: Dispute,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Disputes {
    pub(super) disputes: Vec<Dispute>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Dispute {
    #[serde(rename = "dispute_ref")]
    name: String,
    state: String,
    amount: Money,
    reason: String,
    evidence_due_at_us: Option<i64>,
    withdrawn: bool,
    reinstated: bool,
    responded: bool,
}

impl From<SeenDispute> for Dispute {
    fn from(seen: SeenDispute) -> Self {
        Self {
            name: seen.provider_ref,
            state: seen.state.name().to_lowercase(),
            amount: seen.amount.into(),
            reason: seen.reason,
            evidence_due_at_us: seen.evidence_due_at_us,
            withdrawn: seen.withdrawn,
            reinstated: seen.reinstated,
            responded: seen.responded,
        }
    }
}

impl TryFrom<Dispute> for SeenDispute {
    type Error = Invalid;

    fn try_from(dispute: Dispute) -> Result<Self, Invalid> {
        let state = DisputeState::parse(&dispute.state.to_uppercase());
        Ok(Self {
            provider_ref: dispute.name,
            state: state.ok_or_else(|| Invalid::new("state", "is none of a dispute"))?,
            amount: dispute.amount.try_into()?,
            reason: dispute.reason,
            evidence_due_at_us: dispute.evidence_due_at_us,
            withdrawn: dispute.withdrawn,
            reinstated: dispute.reinstated,
            responded: dispute.responded,
        })
    }
}

impl From<&AcceptDispute> for Acceptance {
    fn from(request: &AcceptDispute) -> Self {
        Self {
            reference: request.reference.clone(),
            dispute_ref: request.dispute_ref.clone(),
        }
    }
}

impl From<Acceptance> for AcceptDispute {
    fn from(request: Acceptance) -> Self {
        Self {
            reference: request.reference,
            dispute_ref: request.dispute_ref,
        }
    }
}

impl From<&SubmitEvidence> for Submission {
    fn from(request: &SubmitEvidence) -> Self {
        let texts = request.evidence.texts.iter();
        let files = request.evidence.files.iter().map(|file| File {
            kind: file.kind.name().to_owned(),
            content_type: file.content_type.name().to_owned(),
            description: file.description.clone(),
            data: STANDARD.encode(&file.bytes),
        });
        Self {
            reference: request.reference.clone(),
            dispute_ref: request.dispute_ref.clone(),
            texts: texts
                .map(|(kind, text)| (kind.name().to_owned(), text.clone()))
                .collect(),
            files: files.collect(),
        }
    }
}

impl TryFrom<Submission> for SubmitEvidence {
    type Error = Invalid;

    fn try_from(request: Submission) -> Result<Self, Invalid> {
        let texts = request.texts.into_iter().map(|(kind, text)| {
            let known = TextKind::parse(&kind);
            let known =
                known.ok_or_else(|| Invalid::new("texts", format!("{kind:?} is no kind")))?;
            Ok((known, text))
        });
        let files = request.files.into_iter().map(|file| {
            let kind = FileKind::parse(&file.kind);
            let content_type = ContentType::parse(&file.content_type);
            let data = STANDARD.decode(&file.data);
            Ok(EvidenceFile {
                kind: kind.ok_or_else(|| Invalid::new("files.kind", "is no kind"))?,
                content_type: content_type
                    .ok_or_else(|| Invalid::new("files.content_type", "is not known"))?,
                description: file.description,
                bytes: data.map_err(|error| Invalid::new("files.data", error.to_string()))?,
            })
        });
        Ok(Self {
            reference: request.reference,
            dispute_ref: request.dispute_ref,
            evidence: Evidence {
                texts: texts.collect::<Result<_, Invalid>>()?,
                files: files.collect::<Result<_, Invalid>>()?,
            },
        })
    }
}
