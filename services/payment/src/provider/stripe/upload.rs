//! A file as `multipart/form-data` (RFC 7578), as Stripe's own clients write it.

use sha2::{Digest as _, Sha256};

/// A file of evidence.
pub(super) struct Upload<'a> {
    /// What for, by Stripe's names.
    pub(super) purpose: &'a str,
    /// Its name; without quotes.
    pub(super) name: &'a str,
    /// Its content.
    pub(super) bytes: &'a [u8],
}

impl Upload<'_> {
    /// A line that does not stand in the file: a hash of it, so that the same file is the same body.
    fn boundary(&self) -> String {
        hex::encode(&Sha256::digest(self.bytes)[..16])
    }

    /// The header's value.
    pub(super) fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.boundary())
    }

    /// The body.
    pub(super) fn body(&self) -> Vec<u8> {
        let boundary = self.boundary();
        let (purpose, name) = (self.purpose, self.name);
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\n{purpose}\r\n\
             --{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        let tail = format!("\r\n--{boundary}--\r\n");
        [head.as_bytes(), self.bytes, tail.as_bytes()].concat()
    }
}
