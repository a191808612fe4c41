//! Memory of small messages that are built, kept to be used again.
//!
//! What it buys: of the instructions for building and encoding a call, an eighth; of a call of 16 B, both sides together,
//! 1.3 % and two of 16 allocations (`benches/HISTORY.md`).
//!
//! ```text
//! Note [Small segments]
//! =====================
//! The `capnp` crate builds in cleared memory, which it takes from the system for each message. The allocator keeps no
//! cleared memory at hand, so that is several times as expensive as other memory. So a message of up to `SEGMENT_WORDS` is
//! built in a segment of this pool instead. When the message is dropped, its allocator clears the words that were used.
//!
//! That allocator only borrows the segment, and messages are sent and dropped on any thread. So segments live for ever, and
//! the process makes `MOST` of them at most: a message that finds none takes memory from the system. Each thread has up to
//! 32 segments at hand. A thread that has more gives some to the process, and so does a thread that ends; a thread that has
//! none takes some from there. So calls may be built on one thread and dropped on another.
//! ```

use std::ops::{Deref, DerefMut};

use capnp::message::{Builder, ScratchSpaceHeapAllocator};
use capnp::Word;

/// The memory of a message: a segment of the pool or none, and memory of the system for the rest.
type ScratchMemory = ScratchSpaceHeapAllocator<'static>;

/// A message that is being built, or has been. See Note [Small segments].
pub(in crate::wire) struct ScratchBuilder {
    message: Option<Builder<ScratchMemory>>,
    /// Whether the segment is one of the pool.
    ours: bool,
}

impl ScratchBuilder {
    /// A message whose first segment has room for so many words.
    pub(in crate::wire) fn new(words: u32) -> Self {
        let segment = if words as usize <= SEGMENT_WORDS { at_hand::take() } else { None };
        let ours = segment.is_some();
        let (memory, from_system) = match segment {
            Some(segment) => (segment, 2 * SEGMENT_WORDS as u32),
            None => (ScratchMemory::new(Word::words_to_bytes_mut(&mut [])), words),
        };
        ScratchBuilder { message: Some(Builder::new(memory.second_segment_words(from_system))), ours }
    }
}

impl Deref for ScratchBuilder {
    type Target = Builder<ScratchMemory>;

    fn deref(&self) -> &Self::Target {
        self.message.as_ref().expect("there is one until this is dropped")
    }
}

impl DerefMut for ScratchBuilder {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.message.as_mut().expect("there is one until this is dropped")
    }
}

impl Drop for ScratchBuilder {
    fn drop(&mut self) {
        if let Some(message) = self.message.take().filter(|_| self.ours) {
            at_hand::give(message.into_allocator());
        }
    }
}

/// The size of the segments of the pool, in words.
const SEGMENT_WORDS: usize = 192;

#[cfg(not(any(shuttle, loom)))]
mod at_hand {
    use std::cell::RefCell;

    use capnp::Word;

    use super::{ScratchMemory, SEGMENT_WORDS};
    use crate::sync::{per_thread, Mutex, OnceLock, Rank};

    /// The number of segments that the process makes at most: 3 MiB.
    const MOST: usize = 2048;
    /// The number of segments that go to the process, or come from there, at once. A thread has at most twice as many.
    const SOME: usize = 16;

    /// The segments of a thread that are not in use.
    struct AtHand(Vec<ScratchMemory>);

    per_thread! {
        static AT_HAND: RefCell<AtHand> = RefCell::new(AtHand(Vec::new()));
    }

    impl Drop for AtHand {
        fn drop(&mut self) {
            of_the_process().lock().spare.append(&mut self.0);
        }
    }

    /// The segments that no thread has at hand.
    struct OfTheProcess {
        spare: Vec<ScratchMemory>,
        made: usize,
    }

    fn of_the_process() -> &'static Mutex<OfTheProcess> {
        static ALL: OnceLock<Mutex<OfTheProcess>> = OnceLock::new();
        ALL.get_or_init(|| Mutex::new(Rank::Memory, OfTheProcess { spare: Vec::new(), made: 0 }))
    }

    impl OfTheProcess {
        /// Gives some to a thread that has none. If there are none, one is made, up to `MOST`.
        fn give_some(&mut self, at_hand: &mut Vec<ScratchMemory>) {
            if self.spare.is_empty() && self.made < MOST {
                self.made += 1;
                self.spare.push(make());
            }
            let from = self.spare.len().saturating_sub(SOME);
            at_hand.extend(self.spare.drain(from..));
        }
    }

    fn make() -> ScratchMemory {
        let words = vec![capnp::word(0, 0, 0, 0, 0, 0, 0, 0); SEGMENT_WORDS];
        ScratchMemory::new(Word::words_to_bytes_mut(words.leak()))
    }

    /// A cleared segment, if there is one. (At the end of a thread there is none.)
    pub(super) fn take() -> Option<ScratchMemory> {
        let taken = AT_HAND.try_with(|at_hand| {
            let at_hand = &mut at_hand.borrow_mut().0;
            if at_hand.is_empty() {
                of_the_process().lock().give_some(at_hand);
            }
            at_hand.pop()
        });
        taken.ok().flatten()
    }

    /// Takes back a segment of a message that was dropped.
    pub(super) fn give(segment: ScratchMemory) {
        let mut segment = Some(segment);
        let _ = AT_HAND.try_with(|at_hand| {
            let at_hand = &mut at_hand.borrow_mut().0;
            at_hand.extend(segment.take());
            if at_hand.len() > 2 * SOME {
                of_the_process().lock().spare.extend(at_hand.drain(SOME..));
            }
        });
        // At the end of a thread.
        if segment.is_some() {
            of_the_process().lock().spare.extend(segment);
        }
    }

    #[cfg(test)]
    mod tests {
        use capnp::message::ReaderSegments;

        use super::super::*;
        use super::*;
        use crate::sync::{spawn, Role};

        /// A message that fills so many words, but for its root.
        fn filled(words: u32) -> ScratchBuilder {
            let mut message = ScratchBuilder::new(words + 1);
            let blob = message.initn_root::<capnp::data::Builder<'_>>(8 * words);
            assert!(blob.iter().all(|byte| *byte == 0), "memory is cleared");
            blob.fill(7);
            message
        }

        fn on_its_own_thread(run: impl FnOnce() + Send + 'static) {
            spawn("segments", Role::User, run).unwrap().join().unwrap();
        }

        fn at_hand() -> usize {
            AT_HAND.with(|at_hand| at_hand.borrow().0.len())
        }

        #[test]
        fn segments_are_used_again_and_cleared() {
            on_its_own_thread(|| {
                for words in [1, 100, SEGMENT_WORDS as u32 - 1, SEGMENT_WORDS as u32, 5, 100] {
                    let message = filled(words);
                    assert_eq!(message.len(), 1, "one segment is enough");
                    assert_eq!(message.ours, words < SEGMENT_WORDS as u32);
                }
                assert!((1..=SOME).contains(&at_hand()));
            });
        }

        #[test]
        fn a_message_that_outgrows_its_segment_goes_on_elsewhere() {
            let mut message = ScratchBuilder::new(1);
            let mut list = message.initn_root::<capnp::text_list::Builder<'_>>(2);
            list.set(0, "x".repeat(8 * SEGMENT_WORDS));
            list.set(1, "y");
            assert_eq!((message.len(), message.ours), (2, true));
        }

        #[test]
        fn a_message_that_one_thread_builds_may_be_dropped_by_another() {
            let messages: Vec<_> = (0..5 * SOME as u32).map(|_| filled(3)).collect();
            on_its_own_thread(move || {
                drop(messages);
                assert!((SOME..=2 * SOME).contains(&at_hand()));
            });
            assert!(of_the_process().lock().made <= MOST);
        }
    }
}

/// A model checker's runs share nothing.
#[cfg(any(shuttle, loom))]
mod at_hand {
    use super::ScratchMemory;

    pub(super) fn take() -> Option<ScratchMemory> {
        None
    }

    pub(super) fn give(_: ScratchMemory) {}
}
