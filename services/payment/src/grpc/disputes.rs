//! Disputes as the contract has them: requests read and checked, answers made.

use super::{next_page, requests};
use crate::dispute::{ContentType, DisputeState, Evidence, EvidenceFile, FileKind, TextKind};
use crate::error::Error;
use crate::store::{DisputesQuery, ListedDispute, Store, Viewer};
use crate::wire;
use kernel::{DisputeId, Invalid, text};
use proto::commerce::payment::v1 as pb;

const DESCRIPTION_CHARACTERS_MAX: usize = 200;

/// A dispute's id.
pub(super) fn id(text: &str) -> Result<DisputeId, Error> {
    Ok(DisputeId::parse(text).map_err(|error| error.at("id"))?)
}

/// One dispute that a viewer may see.
pub(super) async fn one(
    store: &dyn Store,
    viewer: Viewer,
    id: DisputeId,
) -> Result<pb::Dispute, Error> {
    let payment = store.payment_of_dispute(id).await?;
    let payment = payment.filter(|payment| viewer.sees(&payment.order.principal));
    let found = payment.and_then(|payment| {
        let dispute = payment.dispute(id)?;
        let provider = &payment.order.provider;
        Some(wire::disputes::dispute(payment.id, provider, dispute))
    });
    found.ok_or_else(|| Error::DisputeNotFound(id.to_string()))
}

/// A page of disputes that a viewer may see.
pub(super) async fn page(
    store: &dyn Store,
    viewer: Viewer,
    request: &pb::ListDisputesRequest,
) -> Result<pb::ListDisputesResponse, Error> {
    let state = state(request.state)?;
    let payment = match request.payment_id.as_str() {
        "" => None,
        id => Some(requests::payment_id("payment_id", id)?),
    };
    let arguments = [
        request.payment_id.as_str(),
        state.map_or("", DisputeState::name),
    ];
    let query = DisputesQuery {
        viewer,
        payment,
        state,
        after: after(&request.page_token, &arguments)?,
        limit: requests::page_size(request.page_size)? + 1,
    };
    let mut listed = store.disputes(&query).await?;
    let next_page_token = next_page(&mut listed, query.limit, |last: &ListedDispute| {
        let (at_us, id) = (last.dispute.created_at_us, last.dispute.id);
        requests::token(&arguments, at_us, id.to_string())
    });
    let disputes = listed
        .iter()
        .map(|of| wire::disputes::dispute(of.payment, &of.provider, &of.dispute))
        .collect();
    Ok(pb::ListDisputesResponse {
        disputes,
        next_page_token,
    })
}

fn after(token: &str, arguments: &[&str]) -> Result<Option<(i64, DisputeId)>, Error> {
    let Some((at_us, id)) = requests::after(token, arguments)? else {
        return Ok(None);
    };
    let id = DisputeId::parse(&id).map_err(|error| error.at("page_token"))?;
    Ok(Some((at_us, id)))
}

/// The state that is asked for; nothing: any.
fn state(state: i32) -> Result<Option<DisputeState>, Error> {
    let known = DisputeState::ALL
        .into_iter()
        .find(|of| i32::from(wire::disputes::state(*of)) == state);
    if known.is_none() && state != 0 {
        return Err(Invalid::new("state", "is no state of a dispute").into());
    }
    Ok(known)
}

/// What is handed in. How much is taken is a rule of the domain.
pub(super) fn evidence(request: pb::SubmitDisputeEvidenceRequest) -> Result<Evidence, Error> {
    let texts = [
        (TextKind::Explanation, request.explanation),
        (TextKind::ProductDescription, request.product_description),
        (TextKind::CustomerName, request.customer_name),
        (TextKind::CustomerEmail, request.customer_email),
        (TextKind::ServiceDate, request.service_date),
        (TextKind::ShippingAddress, request.shipping_address),
        (TextKind::ShippingCarrier, request.shipping_carrier),
        (TextKind::ShippingDate, request.shipping_date),
        (
            TextKind::ShippingTrackingNumber,
            request.shipping_tracking_number,
        ),
        (
            TextKind::RefundPolicyDisclosure,
            request.refund_policy_disclosure,
        ),
        (
            TextKind::RefundRefusalExplanation,
            request.refund_refusal_explanation,
        ),
        (
            TextKind::CancellationPolicyDisclosure,
            request.cancellation_policy_disclosure,
        ),
        (
            TextKind::CancellationRebuttal,
            request.cancellation_rebuttal,
        ),
        (TextKind::AccessActivityLog, request.access_activity_log),
        (
            TextKind::DuplicateChargeExplanation,
            request.duplicate_charge_explanation,
        ),
    ];
    let given = texts.into_iter().filter(|(_, text)| !text.is_empty());
    let files = request.files.into_iter().enumerate();
    Ok(Evidence {
        texts: given.collect(),
        files: files.map(file).collect::<Result<_, _>>()?,
    })
}

fn file((index, file): (usize, pb::EvidenceFile)) -> Result<EvidenceFile, Error> {
    use pb::evidence_file::Kind;
    let of = |name: &str| format!("files[{index}].{name}");
    let kind = match Kind::try_from(file.kind) {
        Ok(Kind::Receipt) => FileKind::Receipt,
        Ok(Kind::CustomerCommunication) => FileKind::CustomerCommunication,
        Ok(Kind::CustomerSignature) => FileKind::CustomerSignature,
        Ok(Kind::ShippingDocumentation) => FileKind::ShippingDocumentation,
        Ok(Kind::ServiceDocumentation) => FileKind::ServiceDocumentation,
        Ok(Kind::RefundPolicy) => FileKind::RefundPolicy,
        Ok(Kind::CancellationPolicy) => FileKind::CancellationPolicy,
        Ok(Kind::DuplicateChargeDocumentation) => FileKind::DuplicateChargeDocumentation,
        Ok(Kind::Other) => FileKind::Other,
        Ok(Kind::Unspecified) | Err(_) => {
            return Err(Invalid::new(of("kind"), "must be given").into());
        }
    };
    let content_type = ContentType::parse(&file.content_type).ok_or_else(|| {
        let names = ContentType::ALL.map(ContentType::name).join(", ");
        Invalid::new(of("content_type"), format!("must be one of {names}"))
    })?;
    let description = of("description");
    text::bounded(
        &description,
        &file.description,
        0,
        DESCRIPTION_CHARACTERS_MAX,
    )?;
    text::refuse_card_number(&description, &file.description)?;
    Ok(EvidenceFile {
        kind,
        content_type,
        description: file.description,
        bytes: file.data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pdf(kind: pb::evidence_file::Kind) -> pb::EvidenceFile {
        pb::EvidenceFile {
            kind: kind.into(),
            content_type: "application/pdf".into(),
            data: b"%PDF-1.7".to_vec(),
            description: "a receipt".into(),
        }
    }

    fn field(file: pb::EvidenceFile) -> String {
        let request = pb::SubmitDisputeEvidenceRequest {
            files: vec![file],
            ..pb::SubmitDisputeEvidenceRequest::default()
        };
        match evidence(request) {
            Err(Error::Invalid(fields)) => fields[0].field.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn texts_and_files_are_read_and_what_is_empty_is_none() {
        let request = pb::SubmitDisputeEvidenceRequest {
            shipping_carrier: "post".into(),
            files: vec![pdf(pb::evidence_file::Kind::Receipt)],
            ..pb::SubmitDisputeEvidenceRequest::default()
        };
        let read = evidence(request).unwrap();
        assert_eq!(read.texts, [(TextKind::ShippingCarrier, "post".to_owned())]);
        assert_eq!(read.files[0].kind, FileKind::Receipt);
    }

    #[test]
    fn each_kind_of_the_contract_is_one_of_the_domain() {
        let kinds = (1..).map_while(|kind| pb::evidence_file::Kind::try_from(kind).ok());
        let read = kinds.map(|kind| {
            let read = file((0, pdf(kind))).unwrap().kind;
            assert_eq!(read.name(), kind.as_str_name().to_lowercase());
            read
        });
        assert_eq!(read.count(), FileKind::ALL.len());
    }

    #[test]
    fn a_bad_file_is_named() {
        use pb::evidence_file::Kind;
        assert_eq!(field(pdf(Kind::Unspecified)), "files[0].kind");
        let gif = pb::EvidenceFile {
            content_type: "image/gif".into(),
            ..pdf(Kind::Other)
        };
        assert_eq!(field(gif), "files[0].content_type");
        for description in ["x".repeat(201), "card 4111111111111111".to_owned()] {
            let bad = pb::EvidenceFile {
                description,
                ..pdf(Kind::Other)
            };
            assert_eq!(field(bad), "files[0].description");
        }
    }

    #[test]
    fn states_are_those_of_the_contract() {
        assert_eq!(state(0).unwrap(), None);
        assert_eq!(state(5).unwrap(), Some(DisputeState::Lost));
        assert!(state(7).is_err() && state(-1).is_err());
        for of in DisputeState::ALL {
            assert_eq!(wire::disputes::state(of).as_str_name(), of.name());
        }
    }
}
