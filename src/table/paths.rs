//! A table by paths into results.

use im::OrdMap;

use crate::sync::Arc;

/// Pointer fields to follow, from the root of some results to a capability.
type Path = Arc<[u16]>;

/// Values for paths into results. Nearly every such table has no value or one. The peer may name as many paths as it likes,
/// so more than one are in a map, and not in a list. A clone costs one reference count.
#[derive(Clone, Debug, Default)]
pub(crate) enum ByPath<V: Clone> {
    #[default]
    None,
    One(Path, V),
    /// In a box, since it is rare and larger than the other variants.
    Many(Box<OrdMap<Path, V>>),
}

impl<V: Clone> ByPath<V> {
    pub(crate) fn get(&self, path: &[u16]) -> Option<&V> {
        match self {
            ByPath::None => None,
            ByPath::One(only, value) => (**only == *path).then_some(value),
            ByPath::Many(many) => many.get(path),
        }
    }

    /// Enters a value, in place of the one that was there.
    pub(crate) fn insert(&mut self, path: Path, value: V) {
        *self = match std::mem::take(self) {
            ByPath::None => ByPath::One(path, value),
            ByPath::One(only, _) if only == path => ByPath::One(only, value),
            ByPath::One(only, first) => {
                ByPath::Many(Box::new([(only, first), (path, value)].into_iter().collect()))
            }
            ByPath::Many(mut many) => {
                many.insert(path, value);
                ByPath::Many(many)
            }
        };
    }

    pub(crate) fn remove(&mut self, path: &[u16]) -> Option<V> {
        match self {
            ByPath::One(only, _) if **only == *path => match std::mem::take(self) {
                ByPath::One(_, value) => Some(value),
                ByPath::None | ByPath::Many(_) => None,
            },
            ByPath::Many(many) => many.remove(path),
            ByPath::None | ByPath::One(..) => None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            ByPath::None => 0,
            ByPath::One(..) => 1,
            ByPath::Many(many) => many.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All values, in the order of the paths.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Path, &V)> {
        let (one, many) = match self {
            ByPath::None => (None, None),
            ByPath::One(path, value) => (Some((path, value)), None),
            ByPath::Many(many) => (None, Some(many.iter())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// Takes out the values that are not to be kept.
    pub(crate) fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        match self {
            ByPath::None => {}
            ByPath::One(_, value) if keep(value) => {}
            ByPath::One(..) => *self = ByPath::None,
            ByPath::Many(many) => {
                **many = many
                    .iter()
                    .filter(|(_, value)| keep(value))
                    .map(|(p, v)| (p.clone(), v.clone()))
                    .collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_paths() {
        let mut table = ByPath::default();
        let path = |n: u16| -> Path { [n, 2 * n].into() };
        for n in [3, 1, 2, 1] {
            table.insert(path(n), n + 10);
        }
        let before = table.clone();
        assert_eq!((table.len(), table.get(&[1, 2]), table.get(&[1])), (3, Some(&11), None));
        assert!(table.iter().map(|(path, value)| (path[0], *value)).eq([(1, 11), (2, 12), (3, 13)]));
        table.retain(|value| *value != 12);
        assert_eq!(
            (table.remove(&[2, 4]), table.remove(&[3, 6]), table.remove(&[3, 6])),
            (None, Some(13), None)
        );
        assert_eq!((table.remove(&[1, 2]), table.is_empty(), before.len()), (Some(11), true, 3));
        let mut one = ByPath::One(path(5), 5);
        one.insert(path(5), 6);
        one.retain(|value| *value == 6);
        assert_eq!((one.len(), one.remove(&[5]), one.remove(&[5, 10]), one.len()), (1, None, Some(6), 0));
    }
}
