//! A command as a store sees it: who asks under which key, when, and as a part of which trace.

use kernel::text;
use mesh_store::idempotency::{self, Claim, Key};
use prost::Message;
use tonic::{Response, metadata::MetadataValue};

use crate::Error;

/// The call that a change comes from.
#[derive(Clone, Debug)]
pub struct Call {
    /// The caller's key; `None`: the call cannot be repeated safely.
    pub key: Option<Key>,
    /// What time it is, in microseconds since the Unix epoch.
    pub now_us: i64,
    /// The trace that its events continue.
    pub traceparent: String,
}

impl Call {
    /// The call being served: `method` is its path, `request_id` finds the caller's key in its request. The key is
    /// scoped to the principal and the method, and the rest of the request is what it must be repeated with.
    pub fn of<R: Message + Clone>(
        method: &str,
        request: &R,
        request_id: impl FnOnce(&mut R) -> &mut String,
        now_us: i64,
    ) -> Result<Self, Error> {
        let context = mesh::CallContext::current();
        let mut canonical = request.clone();
        let request_id = std::mem::take(request_id(&mut canonical));
        text::request_id(&request_id)?;
        let key = (!request_id.is_empty()).then(|| Key {
            principal: context.principal().name().to_owned(),
            method: method.to_owned(),
            request_id,
            fingerprint: idempotency::fingerprint(&canonical.encode_to_vec()),
        });
        Ok(Self {
            key,
            now_us,
            traceparent: context.traceparent(),
        })
    }
}

/// What a command answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<M> {
    /// The resource afterwards.
    pub resource: M,
    /// Whether this is the stored answer of an earlier call with the same key.
    pub replayed: bool,
}

impl<M> Answer<M> {
    /// The response around the resource, marked where it is a repetition.
    pub fn into_response<T>(self, wrap: impl FnOnce(M) -> T) -> Response<T> {
        let mut response = Response::new(wrap(self.resource));
        if self.replayed {
            let metadata = response.metadata_mut();
            metadata.insert("idempotency-replayed", MetadataValue::from_static("true"));
        }
        response
    }
}

/// What became of a claim.
pub enum Claimed<W, M> {
    /// The key is new, or there is none: do the work.
    New(W),
    /// The work was done before.
    Replay(Answer<M>),
}

impl<W, M: Message + Default> Claimed<W, M> {
    /// By what is known about the key; `work` where it was claimed.
    pub(crate) fn by(claim: Claim, work: W) -> Result<Self, Error> {
        match claim {
            Claim::New => Ok(Self::New(work)),
            Claim::Replay(answer) => {
                let resource = M::decode(&*answer).map_err(|error| Error::Storage(error.into()))?;
                let replayed = true;
                Ok(Self::Replay(Answer { resource, replayed }))
            }
            Claim::InFlight { .. } => Err(Error::InFlight),
            Claim::Reused => Err(Error::KeyReused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any message will do; this one has two texts.
    #[derive(Clone, PartialEq, Message)]
    struct Request {
        #[prost(string, tag = "1")]
        request_id: String,
        #[prost(string, tag = "2")]
        name: String,
    }

    fn key(request_id: &str, name: &str) -> Result<Option<Key>, Error> {
        let request = Request {
            request_id: request_id.to_owned(),
            name: name.to_owned(),
        };
        Call::of("/a.B/C", &request, |request| &mut request.request_id, 7).map(|call| call.key)
    }

    #[test]
    fn the_fingerprint_is_that_of_the_rest_of_the_request() {
        let fingerprint = |request_id, name| key(request_id, name).unwrap().unwrap().fingerprint;
        assert_eq!(fingerprint("1", "a"), fingerprint("2", "a"));
        assert_ne!(fingerprint("1", "a"), fingerprint("1", "b"));
    }

    #[test]
    fn no_request_id_is_no_key_and_a_wrong_one_is_refused() {
        assert_eq!(key("", "a").unwrap(), None);
        assert!(matches!(key("\n", "a"), Err(Error::Invalid(_))));
    }

    #[test]
    fn a_repetition_is_marked() {
        for replayed in [false, true] {
            let answer = Answer {
                resource: 1,
                replayed,
            };
            let response = answer.into_response(|number| number + 1);
            assert_eq!(*response.get_ref(), 2);
            assert_eq!(
                response.metadata().contains_key("idempotency-replayed"),
                replayed
            );
        }
    }
}
