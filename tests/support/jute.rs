//! The wire encoding, written a second time and only for tests: see `support`.
//!
//! The writer can also produce what no client should send (null where nothing may be null, counts that lie).

/// Builds one payload.
#[derive(Clone, Default, Debug)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn new() -> Writer {
        Writer::default()
    }
    pub fn byte(mut self, value: u8) -> Writer {
        self.0.push(value);
        self
    }
    pub fn bool(self, value: bool) -> Writer {
        self.byte(value as u8)
    }
    pub fn int(mut self, value: i32) -> Writer {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }
    pub fn long(mut self, value: i64) -> Writer {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }
    pub fn raw(mut self, bytes: &[u8]) -> Writer {
        self.0.extend_from_slice(bytes);
        self
    }
    /// A buffer or a string: on the wire they are the same.
    pub fn bytes(self, bytes: Option<&[u8]>) -> Writer {
        match bytes {
            None => self.int(-1),
            Some(bytes) => self.int(bytes.len() as i32).raw(bytes),
        }
    }
    pub fn text(self, text: &str) -> Writer {
        self.bytes(Some(text.as_bytes()))
    }
    pub fn texts(mut self, texts: Option<&[Vec<u8>]>) -> Writer {
        let Some(texts) = texts else { return self.int(-1) };
        self = self.int(texts.len() as i32);
        for text in texts {
            self = self.bytes(Some(text));
        }
        self
    }
    pub fn acls(mut self, acls: Option<&[Acl]>) -> Writer {
        let Some(acls) = acls else { return self.int(-1) };
        self = self.int(acls.len() as i32);
        for acl in acls {
            self = self.int(acl.perms).bytes(acl.scheme.as_deref()).bytes(acl.id.as_deref());
        }
        self
    }
    /// The payload with its length before it.
    pub fn frame(self) -> Vec<u8> {
        framed(&self.0)
    }
}

pub fn framed(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 4);
    frame.extend_from_slice(&(payload.len() as i32).to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

#[derive(Clone, PartialEq, Eq)]
pub struct Acl {
    pub perms: i32,
    pub scheme: Option<Vec<u8>>,
    pub id: Option<Vec<u8>>,
}

impl std::fmt::Debug for Acl {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(out, "{}:{}:{}", self.perms, show_opt(self.scheme.as_deref()), show_opt(self.id.as_deref()))
    }
}

impl Acl {
    pub fn new(perms: i32, scheme: &str, id: &str) -> Acl {
        Acl { perms, scheme: Some(scheme.into()), id: Some(id.into()) }
    }
    pub fn open() -> Vec<Acl> {
        vec![Acl::new(31, "world", "anyone")]
    }
}

/// Znode metadata as it stands in replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Stat {
    pub czxid: i64,
    pub mzxid: i64,
    pub ctime: i64,
    pub mtime: i64,
    pub version: i32,
    pub cversion: i32,
    pub aversion: i32,
    pub owner: i64,
    pub length: i32,
    pub children: i32,
    pub pzxid: i64,
}

/// Takes one payload apart; `None` where it ends too early.
#[derive(Clone, Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        Some(head)
    }
    pub fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }
    pub fn int(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }
    pub fn long(&mut self) -> Option<i64> {
        Some(i64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }
    /// Outer `None`: malformed. Inner `None`: null.
    pub fn bytes(&mut self) -> Option<Option<Vec<u8>>> {
        match self.int()? {
            -1 => Some(None),
            length if length < 0 => None,
            length => Some(Some(self.take(length as usize)?.to_vec())),
        }
    }
    pub fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Option<Vec<T>>> {
        match self.int()? {
            -1 => Some(None),
            count if count < 0 => None,
            count => (0..count).map(|_| one(self)).collect::<Option<Vec<T>>>().map(Some),
        }
    }
    pub fn acl(&mut self) -> Option<Acl> {
        Some(Acl { perms: self.int()?, scheme: self.bytes()?, id: self.bytes()? })
    }
    pub fn stat(&mut self) -> Option<Stat> {
        Some(Stat {
            czxid: self.long()?,
            mzxid: self.long()?,
            ctime: self.long()?,
            mtime: self.long()?,
            version: self.int()?,
            cversion: self.int()?,
            aversion: self.int()?,
            owner: self.long()?,
            length: self.int()?,
            children: self.int()?,
            pzxid: self.long()?,
        })
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Bytes as a person reads them: text where it is text, `\xNN` elsewhere; long ones shortened but told apart by a sum.
pub fn show(bytes: &[u8]) -> String {
    if bytes.len() > 300 {
        let sum = bytes.iter().fold(0u64, |sum, &byte| (sum ^ byte as u64).wrapping_mul(0x100_0000_01b3));
        return format!("{}... {} bytes, sum {sum:016x}", show(&bytes[..40]), bytes.len());
    }
    format!("\"{}\"", bytes.escape_ascii())
}

pub fn show_opt(bytes: Option<&[u8]>) -> String {
    bytes.map_or("null".into(), show)
}
