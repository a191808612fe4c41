//! Waiting for the input of many connections at once.
//!
//! ```text
//! Note [One waits for all]
//! ========================
//! A receive thread that sleeps is woken for each message, and goes back to sleep after it: in a process with many
//! connections most of what a message costs. And an idle connection needs no thread. So the receive stage of a new
//! connection, and one whose thread would sleep, is left to rest with the process's reactor (Schmidt's pattern of that
//! name), and a thread of the reactor waits for the input of all stages that rest. It drives those that have some, one after
//! the other: messages that come together, on however many connections, take one wake-up.
//!
//!                    leave                     input
//! start, a thread ----------> Resting ---------------------> Ready (queued)
//!     ^                         ^                              |
//!     |      back               |      stays                   v
//!     '------------------------------------------------------ Driven ------> end
//!
//! Who waits is told of input once, when it comes. So whoever drives a stage reads until there is nothing left, and what
//! is told of it meanwhile makes it ready again: of what comes after the last look, somebody is told after it. A stage
//! that finds more and more goes to the end of the queue after its turn (`TURN_MESSAGES`, `TURN_TIME`). Each time that as
//! many were driven as were in the queue, the poller is asked again, without waiting: so however much some connections
//! send, any other waits for one turn of each of them at most. It goes to a thread of its own (Note [Stage threads])
//! where that has something to do: to wait for room, to lend the stage (Note [Reading is lent]); or to look for input
//! without asking the poller first, if of all stages only this one has had any for a while.
//!
//! One thread works, as a rule. (With two on two processors each wakes the other up for one message at a time.) Should a
//! stage keep it, in a callback of the user's that takes its time, then that must not stop other connections: while
//! it works the keeper looks from time to time, and has another thread take its place if it still drives what it drove
//! before. So one connection holds up another for two of the keeper's intervals at most. If what is ready is never worked
//! off between two looks, and there are processors enough, there is one thread more.
//! ```

mod posts;
#[cfg(not(loom))]
mod stages;

use std::io;

use posts::Posts;
#[cfg(not(loom))]
pub(super) use stages::{can_be_left, leave};

use super::keeper::{keep, Kept};
use super::polling::{First, Polling};
use super::reading::Left;
use crate::sync::{spawn, Arc, Condvar, Duration, Mutex, MutexGuard, Rank, Role, Weak};

/// How many times in a row a stage is driven, and no other one, before it goes to a thread of its own.
const ALONE: u32 = 64;

/// What rests, and is driven by whoever finds that there is input for it.
pub(super) trait Driven: Send + Sized + 'static {
    /// Deals with what has arrived, without waiting; `ended`: behind that its end has come, perhaps.
    fn drive(&mut self, ended: bool) -> Next;

    /// Goes to a thread of its own.
    fn go_back(self);

    /// Ends. Nothing will ever arrive any more.
    fn end(self);

    /// For how long whoever has driven this looks for more before sleeping. See Note [Polling].
    fn polls_for(&self) -> Duration;
}

/// What becomes of a stage that was driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// There was nothing more to read.
    Rests,
    /// There may be more, but it is others' turn.
    Again,
    /// A thread of its own is to see to it.
    Back,
    /// It is over.
    Ended,
}

/// Names what rests, to the poller.
pub(super) type Key = u64;

/// There is input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) key: Key,
    /// Nothing comes after it.
    pub(super) ended: bool,
}

/// What tells of input: of that of each thing which was added, once if there is some by then, and once each time that
/// more comes.
pub(super) trait Poller<S>: Send + Sync + 'static {
    /// Begins to tell of it.
    fn add(&self, key: Key, of: &S) -> io::Result<()>;

    /// Never tells of it again, except to whoever is being told now.
    fn remove(&self, of: &S);

    /// Appends of what there is input, and whether that has ended; waits until there is some if `waits`. May give nothing
    /// for no reason. An error is for ever.
    fn poll(&self, waits: bool, found: &mut Vec<Told>) -> io::Result<()>;
}

/// Where stages rest. See Note [One waits for all].
pub(super) struct Reactor<P, S> {
    poller: P,
    crew: Mutex<Crew<S>>,
    /// Threads that nobody needs now wait here.
    off: Condvar,
    /// How many threads work at most, for want of time.
    most: usize,
}

/// The threads of a reactor, and what they work on.
struct Crew<S> {
    posts: Posts<S>,
    /// How many threads work, and how many are to. Those that take too long don't count.
    working: usize,
    wanted: usize,
    /// One of them asks the poller for input, or waits for it.
    waits: bool,
    /// How many of what is ready are driven before the poller is asked again.
    until_poll: usize,
    /// How many threads wait until they are called, and how many of them are.
    off: usize,
    called: usize,
    /// What is driven now by threads that count: by how many were before it.
    driven: Vec<u64>,
    /// How often something was driven, in all and when the keeper looked.
    drives: u64,
    seen: u64,
    /// What was driven last, and how many times in a row while nothing else was to be.
    last: Key,
    alone: u32,
    /// Everything was worked off since the keeper looked.
    worked_off: bool,
    /// Whether the keeper knows of this, or is being told.
    kept: bool,
    /// Nobody can be told of input any more.
    broken: bool,
    /// For how long to look for input before sleeping.
    polls_for: Duration,
}

impl<S> Crew<S> {
    /// What has been ready for longest, unless it is time to ask the poller.
    fn take_ready(&mut self) -> Option<(Key, S, bool)> {
        if self.until_poll == 0 && !self.waits {
            return None;
        }
        self.until_poll = self.until_poll.saturating_sub(1);
        self.posts.take()
    }
}

impl<P: Poller<S>, S: Driven> Reactor<P, S> {
    /// With at most so many threads that work, besides those which take too long.
    pub(super) fn new(poller: P, most: usize) -> Arc<Self> {
        let crew = Crew {
            posts: Posts::new(),
            working: 0,
            wanted: 1,
            waits: false,
            until_poll: 0,
            off: 0,
            called: 0,
            driven: Vec::new(),
            drives: 0,
            seen: 0,
            last: 0,
            alone: 0,
            worked_off: true,
            kept: false,
            broken: false,
            polls_for: Duration::ZERO,
        };
        Arc::new(Reactor { poller, crew: Mutex::new(Rank::Queue, crew), off: Condvar::new(), most })
    }

    /// Leaves a stage here until it has something to do for a thread of its own.
    pub(super) fn leave(self: &Arc<Self>, stage: S) -> Left<S> {
        let mut crew = self.crew.lock();
        if crew.broken {
            return Left::Unsupported(stage);
        }
        let key = crew.posts.make();
        if !self.see_that_enough_work(crew) || self.poller.add(key, &stage).is_err() {
            self.crew.lock().posts.remove(key);
            return Left::Unsupported(stage);
        }
        let mut crew = self.crew.lock();
        if crew.broken || crew.posts.has_more(key) {
            let broken = crew.broken;
            crew.posts.remove(key);
            drop(crew);
            self.poller.remove(&stage);
            return if broken { Left::Unsupported(stage) } else { Left::Ready(stage) };
        }
        crew.posts.put(key, stage, false);
        Left::Resting
    }

    /// Has as many threads work as are to. False if the system has none to give, and none works.
    fn see_that_enough_work<'a>(self: &'a Arc<Self>, mut crew: MutexGuard<'a, Crew<S>>) -> bool {
        while crew.working < crew.wanted {
            crew.working += 1;
            if crew.off > crew.called {
                crew.called += 1;
                self.off.notify_one();
                continue;
            }
            drop(crew);
            let this = self.clone();
            let started = spawn("capnp-reactor", Role::Connection, move || this.work());
            if let Err(e) = &started {
                log::error!("no thread to wait for input: {e}");
            }
            crew = self.crew.lock();
            if started.is_err() {
                crew.working -= 1;
                return crew.working > 0;
            }
        }
        true
    }

    /// What a thread of the reactor runs.
    fn work(self: &Arc<Self>) {
        let mut counts = true;
        let mut polling = Polling::new();
        let mut found = Vec::new();
        let mut crew = self.crew.lock();
        while !crew.broken {
            // What is ready is not for who waits for input.
            let needed = !crew.waits || crew.posts.any_ready();
            if !counts && needed && (crew.waits || crew.working < crew.wanted) {
                crew.working += 1;
                counts = true;
            }
            if !counts || !needed {
                crew.working -= usize::from(counts);
                crew.wanted = crew.wanted.min(crew.working).max(1);
                crew = self.be_off(crew);
                counts = true;
            } else if let Some(ready) = crew.take_ready() {
                (crew, counts) = self.drive(crew, ready);
            } else {
                let waits = !crew.posts.any_ready();
                crew.waits = true;
                crew.worked_off |= waits;
                let polls_for = crew.polls_for;
                drop(crew);
                let outcome = match waits {
                    true => self.wait(&mut polling, polls_for, &mut found),
                    false => self.poller.poll(false, &mut found),
                };
                if let Err(e) = &outcome {
                    log::error!("waiting for input: {e}");
                }
                crew = self.crew.lock();
                crew.waits = false;
                found.drain(..).for_each(|told| crew.posts.found(told));
                crew.until_poll = crew.posts.ready();
                if outcome.is_err() {
                    crew.broken = true;
                    let stages = crew.posts.take_all();
                    self.off.notify_all();
                    drop(crew);
                    stages.into_iter().for_each(Driven::go_back);
                    return;
                }
            }
        }
    }

    /// Waits for input.
    fn wait(&self, polling: &mut Polling, polls_for: Duration, found: &mut Vec<Told>) -> io::Result<()> {
        let mut outcome = Ok(());
        let polled = polling.poll_many(polls_for, None, First::AtOnce, || {
            outcome = self.poller.poll(false, found);
            found.len()
        });
        if !polled && outcome.is_ok() {
            outcome = self.poller.poll(true, found);
        }
        outcome
    }

    /// Waits until this thread is called.
    fn be_off<'a>(&self, mut crew: MutexGuard<'a, Crew<S>>) -> MutexGuard<'a, Crew<S>> {
        crew.off += 1;
        while crew.called == 0 && !crew.broken {
            self.off.wait(&mut crew);
        }
        crew.off -= 1;
        crew.called = crew.called.saturating_sub(1);
        crew
    }

    /// Drives a stage, and puts it where it belongs. Whether this thread counts as one that works, still.
    fn drive<'a>(
        self: &'a Arc<Self>,
        mut crew: MutexGuard<'a, Crew<S>>,
        (key, mut stage, ended): (Key, S, bool),
    ) -> (MutexGuard<'a, Crew<S>>, bool) {
        crew.drives += 1;
        let drive = crew.drives;
        crew.driven.push(drive);
        let same = std::mem::replace(&mut crew.last, key) == key && !crew.posts.any_ready();
        crew.alone = if same { crew.alone + 1 } else { 0 };
        let alone = crew.alone >= ALONE;
        let known = std::mem::replace(&mut crew.kept, true);
        drop(crew);
        if !known {
            let this: Weak<Self> = Arc::downgrade(self);
            keep(this);
        }
        let next = match stage.drive(ended) {
            Next::Rests if alone => Next::Back,
            next => next,
        };
        if matches!(next, Next::Back | Next::Ended) {
            self.poller.remove(&stage);
        }
        let mut crew = self.crew.lock();
        let gone = if matches!(next, Next::Back | Next::Ended) || crew.broken {
            crew.posts.remove(key);
            Some(stage)
        } else {
            crew.polls_for = stage.polls_for();
            crew.posts.put(key, stage, next == Next::Again);
            None
        };
        let mine = crew.driven.iter().position(|one| *one == drive);
        let counts = mine.map(|mine| crew.driven.swap_remove(mine)).is_some();
        if let Some(stage) = gone {
            drop(crew);
            match next {
                Next::Ended => stage.end(),
                Next::Rests | Next::Again | Next::Back => stage.go_back(),
            }
            crew = self.crew.lock();
        }
        (crew, counts)
    }

    /// Replaces threads that drive what they drove when this was called last, and adds one where that is needed. Whether
    /// to go on looking.
    fn look_after(self: &Arc<Self>) -> bool {
        let mut crew = self.crew.lock();
        let (seen, counted) = (crew.seen, crew.driven.len());
        crew.driven.retain(|drive| *drive > seen);
        let late = counted - crew.driven.len();
        crew.working -= late;
        let too_much = !std::mem::replace(&mut crew.worked_off, false) && crew.posts.any_ready();
        if late == 0 && too_much && crew.wanted < self.most {
            crew.wanted += 1;
        }
        let idle = crew.drives == crew.seen && crew.driven.is_empty() && !crew.posts.any_ready();
        crew.seen = crew.drives;
        crew.kept = !idle;
        self.see_that_enough_work(crew);
        !idle
    }
}

impl<P: Poller<S>, S: Driven> Kept for Reactor<P, S> {
    fn look(self: Arc<Self>) -> bool {
        self.look_after()
    }

    #[cfg(not(any(shuttle, loom)))]
    fn give_up(&self) {
        self.crew.lock().kept = false;
    }
}

#[cfg(test)]
mod tests;
