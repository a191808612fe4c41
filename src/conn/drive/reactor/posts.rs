//! What rests, and what is to be driven.

use std::collections::VecDeque;
use std::mem;

use super::{Key, Told};

/// All that was left with the reactor.
pub(super) struct Posts<S> {
    posts: Vec<Option<Post<S>>>,
    free: Vec<usize>,
    /// How many there have been.
    made: u32,
    /// Those that have input, in the order in which it came.
    ready: VecDeque<Key>,
}

struct Post<S> {
    /// Another one has had the same place before.
    key: Key,
    stands: Stands<S>,
    /// Its end has been told of.
    ended: bool,
}

/// See Note [One waits for all].
enum Stands<S> {
    Resting(S),
    Ready(S),
    Driven {
        /// More input was told of meanwhile.
        again: bool,
    },
}

/// The place of what a key names. What else is in the key tells it from those which had the place before.
fn place(key: Key) -> usize {
    key as u32 as usize
}

impl<S> Posts<S> {
    pub(super) fn new() -> Self {
        Posts { posts: Vec::new(), free: Vec::new(), made: 0, ready: VecDeque::new() }
    }

    /// A post for what the calling thread has still got.
    pub(super) fn make(&mut self) -> Key {
        let place = self.free.pop().unwrap_or_else(|| {
            self.posts.push(None);
            self.posts.len() - 1
        });
        self.made = self.made.wrapping_add(1);
        let key = Key::from(self.made) << 32 | place as Key;
        self.posts[place] = Some(Post { key, stands: Stands::Driven { again: false }, ended: false });
        key
    }

    pub(super) fn remove(&mut self, key: Key) {
        self.posts[place(key)] = None;
        self.free.push(place(key));
    }

    fn get(&mut self, key: Key) -> Option<&mut Post<S>> {
        self.posts.get_mut(place(key))?.as_mut().filter(|post| post.key == key)
    }

    fn at(&mut self, key: Key) -> &mut Post<S> {
        self.get(key).expect("what is driven, or ready, has its post")
    }

    /// Whether something has input.
    pub(super) fn any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// How many have input.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// What has had input for longest, to be driven, and whether its end has been told of.
    pub(super) fn take(&mut self) -> Option<(Key, S, bool)> {
        let key = self.ready.pop_front()?;
        let post = self.at(key);
        match mem::replace(&mut post.stands, Stands::Driven { again: false }) {
            Stands::Ready(stage) => Some((key, stage, post.ended)),
            _ => unreachable!("it is in the queue once, while it is ready"),
        }
    }

    /// Whether more input was told of for what is driven.
    pub(super) fn has_more(&mut self, key: Key) -> bool {
        matches!(self.at(key).stands, Stands::Driven { again: true })
    }

    /// Puts what was driven back to rest, unless there is more input for it: `again`, or as was told of meanwhile.
    pub(super) fn put(&mut self, key: Key, stage: S, again: bool) {
        let post = self.at(key);
        if again || matches!(post.stands, Stands::Driven { again: true }) {
            post.stands = Stands::Ready(stage);
            self.ready.push_back(key);
        } else {
            post.stands = Stands::Resting(stage);
        }
    }

    /// There is input.
    pub(super) fn found(&mut self, told: Told) {
        // What was told of just before it was removed is gone.
        let Some(post) = self.get(told.key) else { return };
        post.ended |= told.ended;
        match mem::replace(&mut post.stands, Stands::Driven { again: true }) {
            Stands::Resting(stage) => {
                post.stands = Stands::Ready(stage);
                self.ready.push_back(told.key);
            }
            Stands::Driven { .. } => {}
            ready @ Stands::Ready(_) => post.stands = ready,
        }
    }

    /// How many rest.
    #[cfg(all(test, not(loom)))]
    pub(super) fn resting(&self) -> usize {
        self.posts.iter().flatten().filter(|post| matches!(post.stands, Stands::Resting(_))).count()
    }

    /// All that is not driven just now, of which nothing is told any more.
    pub(super) fn take_all(&mut self) -> Vec<S> {
        self.ready.clear();
        let resting = |place: &usize| {
            !matches!(self.posts[*place], None | Some(Post { stands: Stands::Driven { .. }, .. }))
        };
        let places: Vec<usize> = (0..self.posts.len()).filter(resting).collect();
        let post = |place: usize| {
            self.free.push(place);
            self.posts[place].take()
        };
        let stages = places.into_iter().filter_map(post).filter_map(|post| match post.stands {
            Stands::Resting(stage) | Stands::Ready(stage) => Some(stage),
            Stands::Driven { .. } => None,
        });
        stages.collect()
    }
}
