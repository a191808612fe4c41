//! Lists that are empty, or of one item, nearly always.
//!
//! `smallvec::SmallVec<[T; 1]>` in the place of [`Short`] takes 2 % more instructions for a call, and 7 % more for handling a
//! Return (`benches/instructions`): it moves its items by their length, where an `Option` is moved as it is.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// A list that is empty, or of one item, nearly always: such a list allocates no memory.
#[derive(Clone)]
pub(crate) enum Short<T> {
    Few(Option<T>),
    Many(Vec<T>),
}

impl<T> Short<T> {
    pub(crate) const fn new() -> Self {
        Short::Few(None)
    }

    pub(crate) const fn of(item: T) -> Self {
        Short::Few(Some(item))
    }

    /// An empty list, with room for so many.
    pub(crate) fn with_capacity(items: usize) -> Self {
        match items {
            0 | 1 => Short::new(),
            _ => Short::Many(Vec::with_capacity(items)),
        }
    }

    pub(crate) fn push(&mut self, item: T) {
        match self {
            Short::Few(few @ None) => *few = Some(item),
            Short::Few(few) => *self = Short::Many(few.take().into_iter().chain([item]).collect()),
            Short::Many(many) => many.push(item),
        }
    }

    /// The items, in order, as a list that others know.
    pub(crate) fn into_vec(self) -> Vec<T> {
        match self {
            Short::Few(few) => few.into_iter().collect(),
            Short::Many(many) => many,
        }
    }

    /// What becomes of each item, in order.
    pub(crate) fn map<U>(self, f: impl FnMut(T) -> U) -> Short<U> {
        match self {
            Short::Few(few) => Short::Few(few.map(f)),
            Short::Many(many) => Short::Many(many.into_iter().map(f).collect()),
        }
    }
}

impl<T> Default for Short<T> {
    fn default() -> Self {
        Short::new()
    }
}

impl<T> Deref for Short<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Short::Few(few) => few.as_slice(),
            Short::Many(many) => many,
        }
    }
}

impl<T> DerefMut for Short<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Short::Few(few) => few.as_mut_slice(),
            Short::Many(many) => many,
        }
    }
}

impl<T> FromIterator<T> for Short<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let items = items.into_iter();
        let mut list = Short::with_capacity(items.size_hint().0);
        items.for_each(|item| list.push(item));
        list
    }
}

impl<T> From<Vec<T>> for Short<T> {
    fn from(items: Vec<T>) -> Self {
        items.into_iter().collect()
    }
}

impl<T> IntoIterator for Short<T> {
    type Item = T;
    type IntoIter = std::iter::Chain<std::option::IntoIter<T>, std::vec::IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        let (few, many) = match self {
            Short::Few(few) => (few, Vec::new()),
            Short::Many(many) => (None, many),
        };
        few.into_iter().chain(many)
    }
}

impl<T: PartialEq> PartialEq for Short<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: fmt::Debug> fmt::Debug for Short<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_what_was_put_into_it() {
        for len in 0..5 {
            let mut pushed = Short::new();
            (0..len).for_each(|i| pushed.push(i));
            let all: Vec<usize> = (0..len).collect();
            assert_eq!((&pushed[..], pushed.len()), (&all[..], len));
            let collected: Short<usize> = all.iter().copied().collect();
            assert!(collected.clone().into_iter().eq(all.iter().copied()));
            assert_eq!((&collected, &Short::from(all.clone())), (&pushed, &pushed));
            assert_eq!(format!("{collected:?}"), format!("{all:?}"));
            assert_eq!(collected.map(|i| i + 1), all.iter().map(|i| i + 1).collect());
            pushed.iter_mut().for_each(|i| *i += 1);
            assert!(pushed.iter().copied().eq(1..=len));
        }
    }

    #[test]
    fn more_are_taken_where_fewer_were_foreseen() {
        let odd: Short<u8> = (0..8).filter(|i| i % 2 == 1).collect();
        assert_eq!(*odd, [1, 3, 5, 7]);
        assert!(Short::<u8>::with_capacity(9).is_empty());
    }
}
