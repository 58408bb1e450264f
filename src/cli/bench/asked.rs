//! What a connection has been asked and has not answered yet: replies come in the order of requests, so that a line of
//! these says what the next one has to be.

use crate::clock::Now;

/// A request that has not been answered yet.
pub struct Asked<T> {
    pub xid: i32,
    /// What its load knows it by.
    pub tag: T,
    /// What latency counts from.
    pub due: Now,
    /// What patience counts from: in an open loop a request may leave long after it was due.
    pub written: Now,
}

/// The xids of a connection: positive, since the others have a meaning of their own.
#[derive(Default)]
pub struct Xids(i32);

impl Xids {
    pub fn next(&mut self) -> i32 {
        self.0 = if self.0 == i32::MAX { 1 } else { self.0 + 1 };
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_last_xid_comes_the_first() {
        let mut xids = Xids::default();
        assert_eq!([xids.next(), xids.next()], [1, 2]);
        xids.0 = i32::MAX - 1;
        assert_eq!([xids.next(), xids.next()], [i32::MAX, 1]);
    }
}
