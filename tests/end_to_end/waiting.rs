//! All the ways to wait for an answer: blocking, with a deadline, by callback, channel, and future.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crossbeam_channel::{unbounded, Sender};

use crate::support::Soon;

struct Woken(Sender<()>);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        // Nobody listens any more once the future has been polled to its end.
        let _ = self.0.send(());
    }
}

/// The smallest executor: polls a future when it says that it can go on.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let (wake, woken) = unbounded();
    let waker = Waker::from(Arc::new(Woken(wake)));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        (&woken).soon();
    }
}
