//! What is left with a reactor, and a poller that is told of input by hand.

use std::collections::HashMap;

use super::*;

/// Something that has input.
type Name = usize;

/// Tells of the input that tests say there is.
struct ByHand {
    state: Mutex<Input>,
    changed: Condvar,
}

#[derive(Default)]
struct Input {
    /// What has come, and was not read.
    come: HashMap<Name, usize>,
    keys: HashMap<Name, Key>,
    told: Vec<Told>,
    closed: bool,
}

impl ByHand {
    /// More has come.
    fn comes(&self, to: Name) {
        let mut state = self.state.lock();
        *state.come.entry(to).or_default() += 1;
        let key = state.keys.get(&to).copied();
        state.told.extend(key.map(|key| Told { key, ended: false }));
        drop(state);
        self.changed.notify_all();
    }

    /// Everything that has come.
    fn read(&self, from: Name) -> usize {
        self.state.lock().come.insert(from, 0).unwrap_or_default()
    }

    /// Polling fails from now on.
    fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }
}

impl Poller<Stage> for Arc<ByHand> {
    fn add(&self, key: Key, of: &Stage) -> io::Result<()> {
        let mut state = self.state.lock();
        state.keys.insert(of.name, key);
        if state.come.get(&of.name).is_some_and(|come| *come > 0) {
            state.told.push(Told { key, ended: false });
            drop(state);
            self.changed.notify_all();
        }
        Ok(())
    }

    fn remove(&self, of: &Stage) {
        self.state.lock().keys.remove(&of.name);
    }

    fn poll(&self, waits: bool, found: &mut Vec<Told>) -> io::Result<()> {
        let mut state = self.state.lock();
        while waits && state.told.is_empty() && !state.closed {
            self.changed.wait(&mut state);
        }
        found.append(&mut state.told);
        if state.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }
}

/// Reads what has come, until there was enough.
struct Stage {
    name: Name,
    inputs: Arc<ByHand>,
    read: usize,
    enough: usize,
    /// How many more times there is more to read after it was driven.
    again: usize,
    /// Runs when it is driven.
    then: Box<dyn FnMut() + Send>,
    /// Where its own thread waits for it.
    back: Arc<Back>,
}

/// A stage that has come back.
struct Back(Mutex<Option<Stage>>, Condvar);

impl Back {
    fn new() -> Arc<Self> {
        Arc::new(Back(Mutex::new(Rank::Pool, None), Condvar::new()))
    }

    fn take(&self) -> Stage {
        let mut stage = self.0.lock();
        loop {
            match stage.take() {
                Some(stage) => return stage,
                None => self.1.wait(&mut stage),
            }
        }
    }
}

/// Leaves a stage with the reactor, until it comes back to its own thread, which this is.
fn rest(reactor: &OfTest, stage: Stage) -> Result<Stage, Stage> {
    let back = stage.back.clone();
    match reactor.leave(stage) {
        Left::Resting => Ok(back.take()),
        Left::Ready(stage) => Ok(stage),
        Left::Unsupported(stage) => Err(stage),
    }
}

impl Driven for Stage {
    fn drive(&mut self, _ended: bool) -> Next {
        self.read += self.inputs.read(self.name);
        (self.then)();
        if self.read >= self.enough {
            Next::Back
        } else if self.again > 0 {
            self.again -= 1;
            Next::Again
        } else {
            Next::Rests
        }
    }

    fn go_back(self) {
        let back = self.back.clone();
        *back.0.lock() = Some(self);
        back.1.notify_one();
    }

    fn end(self) {
        unreachable!("a stage of these tests goes back");
    }

    fn polls_for(&self) -> Duration {
        Duration::ZERO
    }
}

type OfTest = Arc<Reactor<Arc<ByHand>, Stage>>;

fn reactor() -> (OfTest, Arc<ByHand>) {
    let state = Mutex::new(Rank::Pool, Input::default());
    let inputs = Arc::new(ByHand { state, changed: Condvar::new() });
    (Reactor::new(inputs.clone(), 2), inputs)
}

fn stage(inputs: &Arc<ByHand>, name: Name, enough: usize, then: impl FnMut() + Send + 'static) -> Stage {
    Stage { name, inputs: inputs.clone(), read: 0, enough, again: 0, then: Box::new(then), back: Back::new() }
}

/// What a stage's own thread does until there was enough.
fn until_enough(reactor: &OfTest, mut stage: Stage) {
    while stage.read < stage.enough {
        stage = rest(reactor, stage).unwrap_or_else(|_| panic!("it may rest"));
        stage.drive(false);
    }
}

fn on_its_own_thread(run: impl FnOnce() + Send + 'static) -> crate::sync::JoinHandle<()> {
    spawn("own", Role::User, run).unwrap()
}

#[cfg(loom)]
mod loom_tests {
    use super::*;
    use crate::sync::check_most;

    #[test]
    fn loom_no_input_is_forgotten() {
        check_most(|| {
            let (reactor, inputs) = reactor();
            let sends = inputs.clone();
            on_its_own_thread(move || {
                sends.comes(0);
                sends.comes(0);
            });
            until_enough(&reactor, stage(&inputs, 0, 2, || {}));
            inputs.close();
        });
    }

    /// A thread that has been replaced puts its stage back while the other one waits.
    #[test]
    fn loom_who_was_late_works_off_what_it_made_ready() {
        check_most(|| {
            let (reactor, inputs) = reactor();
            inputs.comes(0);
            let (late, more) = (reactor.clone(), inputs.clone());
            let mut first = true;
            let then = move || {
                if std::mem::take(&mut first) {
                    late.look_after();
                    late.look_after();
                    more.comes(0);
                }
            };
            until_enough(&reactor, stage(&inputs, 0, 2, then));
            inputs.close();
        });
    }
}

#[cfg(not(any(loom, shuttle)))]
mod unit_tests {
    use crossbeam_channel::unbounded;

    use super::*;
    use crate::sync::atomic::{AtomicUsize, Ordering};
    use crate::sync::{role, yield_now};

    #[test]
    fn many_are_driven_while_their_threads_sleep() {
        let (reactor, inputs) = reactor();
        let driven = Arc::new(AtomicUsize::new(0));
        let own: Vec<_> = (0..20)
            .map(|name| {
                let (reactor, driven) = (reactor.clone(), driven.clone());
                let count = move || {
                    driven.fetch_add(usize::from(role() == Role::Connection), Ordering::Relaxed);
                };
                let stage = stage(&inputs, name, 3, count);
                on_its_own_thread(move || until_enough(&reactor, stage))
            })
            .collect();
        while reactor.crew.lock().posts.resting() < 20 {
            yield_now();
        }
        for _ in 0..3 {
            (0..20).for_each(|name| inputs.comes(name));
        }
        own.into_iter().for_each(|own| own.join().unwrap());
        assert!(driven.load(Ordering::Relaxed) >= 20);
    }

    #[test]
    fn who_takes_long_does_not_hold_up_others() {
        let (reactor, inputs) = reactor();
        let (done, other_is_done) = unbounded();
        // One holds the thread that drives it until the other one is driven.
        let waits = stage(&inputs, 0, 1, move || other_is_done.recv().unwrap());
        let tells = stage(&inputs, 1, 1, move || done.send(()).unwrap());
        let own: Vec<_> = [waits, tells]
            .map(|stage| {
                let reactor = reactor.clone();
                on_its_own_thread(move || drop(rest(&reactor, stage)))
            })
            .into();
        while reactor.crew.lock().posts.resting() < 2 {
            yield_now();
        }
        inputs.comes(0);
        inputs.comes(1);
        own.into_iter().for_each(|own| own.join().unwrap());
    }

    #[test]
    fn input_beside_stages_that_always_have_more_waits_for_one_turn_of_each() {
        let (reactor, inputs) = reactor();
        let (driven, order) = unbounded();
        let floods = 3;
        let mut own = Vec::new();
        for name in 0..=floods {
            let (driven, sends) = (driven.clone(), inputs.clone());
            let polite = name == floods;
            let mut drives = 0;
            let then = move || {
                drives += 1;
                if name == 0 && drives == 10 {
                    sends.comes(floods);
                }
                driven.send((name, drives)).unwrap();
            };
            let mut stage = stage(&inputs, name, if polite { 1 } else { usize::MAX }, then);
            stage.again = if polite { 0 } else { 1_000 };
            let reactor = reactor.clone();
            own.push(on_its_own_thread(move || drop(rest(&reactor, stage))));
        }
        while reactor.crew.lock().posts.resting() <= floods {
            yield_now();
        }
        (0..floods).for_each(|name| inputs.comes(name));
        let order = order.iter().skip_while(|drive| *drive != (0, 10));
        let before = order.take_while(|(name, _)| *name != floods).count();
        // The rest of the round in which its input came, the next one, and what a second thread drives meanwhile.
        assert!(before <= 3 * floods, "{before} turns of others");
        inputs.close();
        own.into_iter().for_each(|own| own.join().unwrap());
    }

    #[test]
    fn what_alone_has_input_goes_back_to_its_own_thread() {
        let (reactor, inputs) = reactor();
        let stage = stage(&inputs, 0, usize::MAX, || {});
        let own = on_its_own_thread({
            let reactor = reactor.clone();
            move || assert!(rest(&reactor, stage).ok().unwrap().read > ALONE as usize)
        });
        for _ in 0..=ALONE {
            while reactor.crew.lock().posts.resting() == 0 {
                yield_now();
            }
            inputs.comes(0);
            while inputs.state.lock().come[&0] > 0 {
                yield_now();
            }
        }
        own.join().unwrap();
        inputs.close();
    }

    #[test]
    fn if_nothing_tells_of_input_any_more_all_goes_back() {
        let (reactor, inputs) = reactor();
        let resting = stage(&inputs, 0, 1, || {});
        let own = on_its_own_thread({
            let reactor = reactor.clone();
            move || assert_eq!(rest(&reactor, resting).ok().unwrap().read, 0)
        });
        while reactor.crew.lock().posts.resting() == 0 {
            yield_now();
        }
        inputs.close();
        own.join().unwrap();
        assert!(rest(&reactor, stage(&inputs, 1, 1, || {})).is_err());
    }

    #[test]
    fn there_is_one_thread_more_while_work_is_never_done() {
        let (reactor, inputs) = reactor();
        let key = {
            let mut crew = reactor.crew.lock();
            crew.working = 1;
            crew.worked_off = false;
            let key = crew.posts.make();
            crew.posts.put(key, stage(&inputs, 0, 2, || {}), true);
            key
        };
        // The keeper's look. Whoever it has work does so, finds nothing more to do, and waits.
        assert!(reactor.look_after());
        while reactor.crew.lock().posts.any_ready() || !reactor.crew.lock().driven.is_empty() {
            yield_now();
        }
        let mut crew = reactor.crew.lock();
        assert_eq!((crew.working, crew.wanted), (2, 2));
        crew.posts.remove(key);
        drop(crew);
        inputs.close();
    }
}
