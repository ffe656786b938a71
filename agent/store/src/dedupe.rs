//! The keys under which message ids are remembered.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

/// Ids of up to this many bytes are kept as they are. What publishers use (counters, UUIDs, ULIDs) is shorter; a longer
/// one is kept as a digest, so that nobody decides how large the rows are.
const PLAIN: usize = 48;

/// Before the digest of a long id. It occurs in no UTF-8 text, so that no short id looks like a long one's digest.
const DIGESTED: u8 = 0xFF;

/// Bytes of the digests of client and topic.
const PART: usize = 8;

/// What a message id is remembered by: (authenticated client, topic, message id).
///
/// ```text
/// SHA-256(client)[..8]  id, or 0xFF SHA-256(id)  SHA-256(topic)[..8]
/// ```
///
/// The order of keys is what matters for the disk: ids that a publisher counts up lie side by side, on one page of the
/// tree, where a digest of everything would put each on a page of its own and so write a page per event.
///
/// The ends have a fixed length, so what is between them is the id and nothing else: keys are equal only where the ids
/// are, or where both are long and collide in SHA-256. The ends are 64 bits of a digest each. That two of a thousand
/// million clients (or topics) share theirs has a probability of 3 %, and would be noticed only if both used the same id
/// within the window. To have somebody else's message taken for a duplicate, one would have to find a name with the
/// digest of that very client, which takes about 2^64 tries, and then to guess the id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DedupeKey(Arc<[u8]>);

impl DedupeKey {
    /// The key of message `id` from an authenticated `client` on `topic`.
    pub fn new(client: &str, topic: &str, id: &str) -> Self {
        let mut key = Vec::with_capacity(PART + PLAIN + PART);
        key.extend(digest(client));
        if id.len() > PLAIN {
            key.push(DIGESTED);
            key.extend(Sha256::digest(id));
        } else {
            key.extend(id.as_bytes());
        }
        key.extend(digest(topic));
        Self(key.into())
    }

    /// As it lies in the database.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for DedupeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The first bytes of the digest of a text, with its length before it.
fn digest(text: &str) -> [u8; PART] {
    let mut hasher = Sha256::new();
    hasher.update((text.len() as u64).to_le_bytes());
    hasher.update(text);
    let mut part = [0; PART];
    part.iter_mut().zip(hasher.finalize()).for_each(|(to, from)| *to = from);
    part
}
