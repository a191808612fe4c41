//! A table by the addresses of values in memory.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Values for addresses.
pub(crate) struct ByAddress<V>(HashMap<usize, V, BuildHasherDefault<AddressHasher>>);

impl<V> Default for ByAddress<V> {
    fn default() -> Self {
        ByAddress(HashMap::default())
    }
}

impl<V> ByAddress<V> {
    pub(crate) fn get(&self, address: usize) -> Option<&V> {
        self.0.get(&address)
    }

    pub(crate) fn insert(&mut self, address: usize, value: V) {
        self.0.insert(address, value);
    }

    pub(crate) fn remove(&mut self, address: usize) {
        self.0.remove(&address);
    }

    pub(crate) fn clear(&mut self) {
        self.0 = HashMap::default();
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &V)> {
        self.0.iter().map(|(address, value)| (*address, value))
    }
}

/// The peer chooses no address, so spreading them is enough. A hash table takes the slot from the low bits, and a check from
/// the high ones.
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
    fn values_are_found_by_their_addresses() {
        let mut table = ByAddress::default();
        (0..100).for_each(|n| table.insert(n * 64, n));
        (50..100).for_each(|n| table.remove(n * 64));
        assert_eq!((table.len(), table.get(640), table.get(6400 - 64)), (50, Some(&10), None));
        assert!(table.iter().all(|(address, n)| address == n * 64));
        table.clear();
        assert_eq!((table.len(), table.get(640)), (0, None));
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
