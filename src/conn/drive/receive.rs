//! The receive stage, with those behind it. See Note [Lending].

use super::lending::handling;
use super::polling::{First, Polling};
use crate::conn::shared::{Incoming, Shared};
use crate::conn::stages::{CallbackStage, CoordinatorStage, Progress, ReceiveStage, Wait};
use crate::promise::count_sleep;
use crate::sync::atomic::Ordering;
use crate::sync::{finally, is_panicking, Arc, Instant, ProcessCounter, Turn};

/// How many connections of this process have such a stage.
pub(super) static RECEIVERS: ProcessCounter = ProcessCounter::new(0);

/// Receives messages, and is coordinator and callback runner to what it has received, unless others are at it.
pub(super) struct InlineReceiver {
    pub(super) shared: Arc<Shared>,
    pub(super) stage: ReceiveStage,
    polling: Polling,
    coordinator: CoordinatorStage,
    callback: CallbackStage,
}

impl Drop for InlineReceiver {
    fn drop(&mut self) {
        RECEIVERS.fetch_sub(1, Ordering::Relaxed);
        self.shared.drive.reading.close();
    }
}

impl InlineReceiver {
    pub(super) fn new(shared: &Arc<Shared>, stage: ReceiveStage) -> Self {
        RECEIVERS.fetch_add(1, Ordering::Relaxed);
        InlineReceiver {
            shared: shared.clone(),
            stage,
            polling: Polling::new(),
            coordinator: CoordinatorStage::new(shared),
            callback: CallbackStage::new(shared),
        }
    }

    /// Receives one message, and handles it once there is room for it.
    pub(super) fn step(&mut self, wait: Wait) -> Progress {
        match self.stage.next(wait) {
            Ok(message) => self.hand_on(message),
            Err(progress) => {
                if self.stage.holds_message() {
                    self.shared.drive.reading.goes_on(false);
                }
                progress
            }
        }
    }

    fn hand_on(&mut self, message: Incoming) -> Progress {
        match self.shared.incoming.take_turn_with(message) {
            Ok(turn) => self.go_on(turn),
            Err(_) => return Progress::Ended,
        }
        match self.stage.is_ready() {
            true => self.shared.drive.reading.goes_on(true),
            false => self.end_batch(),
        }
        Progress::Made
    }

    /// Handles what has arrived, and does what that leaves to be done.
    fn go_on(&self, turn: Option<Turn<'_, Incoming>>) {
        let shared = &self.shared;
        // Should this panic, others run the callbacks.
        let _run_by_others = finally(|| {
            if is_panicking() {
                shared.callbacks.wake();
            }
        });
        let handling = handling(shared.id);
        if let Some(mut turn) = turn {
            while let Some(item) = turn.next() {
                self.coordinator.one(item);
            }
            if turn.ends_stage() {
                shared.ending.stage_ended();
            }
        }
        if handling.called_back() {
            self.call_back();
        }
    }

    /// Runs the callbacks that there are, unless another thread does.
    fn call_back(&self) {
        let ends = match self.shared.callbacks.take_turn() {
            Some(mut turn) => {
                while let Some(callback) = turn.next() {
                    self.callback.run(callback);
                }
                turn.ends_stage()
            }
            None => self.shared.callbacks.end(),
        };
        if ends {
            self.shared.end_callbacks();
        }
    }

    /// Sends what the messages since the last batch have left to be sent. More may be at hand all the same.
    pub(super) fn end_batch(&self) {
        self.shared.before_sleep();
        // What this thread does next comes after a wait for input.
        count_sleep();
    }

    /// Polls for as long as that pays and `waits` says so. Whether there is something to receive, or no need to wait.
    /// See Note [Polling].
    pub(super) fn poll(&mut self, deadline: Option<Instant>, first: First, waits: impl Fn() -> bool) -> bool {
        let InlineReceiver { shared, stage, polling, .. } = self;
        if stage.has_seen() {
            return true;
        }
        stage.can_look() && polling.poll(shared.limits.polling, deadline, first, || stage.look() || !waits())
    }

    /// It may pay to poll now, whatever was so before.
    pub(super) fn poll_anew(&mut self) {
        self.polling.retry();
    }

    /// Receives what is there, without waiting.
    pub(super) fn receive_all(&mut self) -> Progress {
        loop {
            let progress = self.step(Wait::No);
            if progress != Progress::Made || !self.shared.drive.reading.is_in_batch() {
                return progress;
            }
        }
    }
}
