//! The digest scheme: `user:base64(hash(user:password))` (upstream: `DigestAuthenticationProvider`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::Digest;

/// `DigestAuthenticationProvider.digestAlg`, by the names that Java's `MessageDigest` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DigestAlgorithm {
    Md5,
    #[default]
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
    Sha3_224,
    Sha3_256,
    Sha3_384,
    Sha3_512,
}

impl DigestAlgorithm {
    /// `None` for a name that stands for no algorithm here: the server must not start, as its ids would match nobody's.
    pub fn from_name(name: &str) -> Option<DigestAlgorithm> {
        use DigestAlgorithm::*;
        Some(match name.to_ascii_uppercase().as_str() {
            "MD5" => Md5,
            "SHA1" | "SHA-1" | "SHA" => Sha1,
            "SHA-224" => Sha224,
            "SHA-256" => Sha256,
            "SHA-384" => Sha384,
            "SHA-512" => Sha512,
            "SHA3-224" => Sha3_224,
            "SHA3-256" => Sha3_256,
            "SHA3-384" => Sha3_384,
            "SHA3-512" => Sha3_512,
            _ => return None,
        })
    }

    fn hash_base64(self, bytes: &[u8]) -> String {
        use DigestAlgorithm::*;
        match self {
            Md5 => STANDARD.encode(md5::Md5::digest(bytes)),
            Sha1 => STANDARD.encode(sha1::Sha1::digest(bytes)),
            Sha224 => STANDARD.encode(sha2::Sha224::digest(bytes)),
            Sha256 => STANDARD.encode(sha2::Sha256::digest(bytes)),
            Sha384 => STANDARD.encode(sha2::Sha384::digest(bytes)),
            Sha512 => STANDARD.encode(sha2::Sha512::digest(bytes)),
            Sha3_224 => STANDARD.encode(sha3::Sha3_224::digest(bytes)),
            Sha3_256 => STANDARD.encode(sha3::Sha3_256::digest(bytes)),
            Sha3_384 => STANDARD.encode(sha3::Sha3_384::digest(bytes)),
            Sha3_512 => STANDARD.encode(sha3::Sha3_512::digest(bytes)),
        }
    }
}

/// The id of `user:password`. The user is what stands before the first colon, or everything; the hash covers it all.
pub fn derive(user_password: &str, algorithm: DigestAlgorithm) -> String {
    let user = user_password.split(':').next().unwrap_or(user_password);
    format!("{user}:{}", algorithm.hash_base64(user_password.as_bytes()))
}

/// Whether an ACL may have this id: two parts when split at colons as Java splits (empty parts at the end are dropped).
pub(super) fn valid_id(id: &str) -> bool {
    id.trim_end_matches(':').split(':').count() == 2
}
