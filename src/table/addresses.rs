//! A table by the addresses of values in memory.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::sync::Arc;

/// What is known of values, by their addresses. A clone shares all, and whoever changes one of them first copies it.
#[derive(Clone)]
pub(crate) struct ByAddress<V: Clone>(Arc<HashMap<usize, V, BuildHasherDefault<AddressHasher>>>);

impl<V: Clone> Default for ByAddress<V> {
    fn default() -> Self {
        ByAddress(Arc::default())
    }
}

impl<V: Clone> ByAddress<V> {
    pub(crate) fn get(&self, address: usize) -> Option<&V> {
        self.0.get(&address)
    }

    pub(crate) fn insert(&mut self, address: usize, value: V) {
        Arc::make_mut(&mut self.0).insert(address, value);
    }

    pub(crate) fn remove(&mut self, address: usize) {
        Arc::make_mut(&mut self.0).remove(&address);
    }

    pub(crate) fn clear(&mut self) {
        self.0 = Arc::default();
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &V)> {
        self.0.iter().map(|(address, value)| (*address, value))
    }
}

/// Nobody else chooses addresses, so that spreading them is enough: a table takes its place from the low bits and
/// a check from the high ones.
#[derive(Clone, Copy, Default)]
pub(crate) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize(usize::from(*byte)));
    }

    fn write_usize(&mut self, address: usize) {
        /// 2 to the 64th by the golden ratio.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        self.0 = (self.0 ^ address as u64).wrapping_mul(SPREAD);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_keeps_what_it_had() {
        let mut table = ByAddress::default();
        (0..100).for_each(|n| table.insert(n * 64, n));
        let before = table.clone();
        (0..100).for_each(|n| table.remove(n * 64));
        assert_eq!((table.len(), before.len(), before.get(640)), (0, 100, Some(&10)));
        assert!(before.iter().all(|(address, n)| address == n * 64));
    }

    #[test]
    fn addresses_are_spread() {
        let hash = |address: usize| {
            let mut hasher = AddressHasher::default();
            hasher.write_usize(address);
            hasher.finish()
        };
        let low: std::collections::BTreeSet<_> =
            (0..64).map(|n| hash(0x7f00_0000_0000 + n * 128) & 1023).collect();
        assert!(low.len() > 48, "{} of 64 are different", low.len());
    }
}
