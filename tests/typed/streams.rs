//! Streaming methods.

use std::sync::Mutex;

use capnp_threads::{Capability, Error, ExceptionKind, Result, Stream};
use crossbeam_channel::{unbounded, Receiver, Sender};

use crate::generated::methods_capnp::*;
use crate::support::{offered, why, Setting, Soon, DEADLINE};

in_each_setting!(
    streamed_calls_arrive_in_order,
    a_stream_is_in_order_with_plain_calls,
    a_full_window_blocks_its_sender,
    the_first_failure_is_told,
    a_failure_ends_a_wait_for_room,
    streaming_methods_without_params_and_with_a_struct,
    an_error_in_filling_the_params_sends_nothing,
    threads_share_a_stream,
    an_unwritten_streaming_method_fails_the_stream,
    a_streaming_call_has_a_timeout,
    params_of_a_streaming_call_are_set_from_a_reader,
);

/// Adds numbers up; refuses the number 13; waits at a gate if it has one.
#[derive(Default)]
struct Drain {
    numbers: Mutex<Vec<u64>>,
    gate: Option<Receiver<()>>,
}

impl Drain {
    fn gated() -> (sink::Client, Sender<()>) {
        let (sender, gate) = unbounded();
        (sink::Client::new(Drain { gate: Some(gate), ..Drain::default() }), sender)
    }

    fn push(&self, number: u64) {
        self.numbers.lock().unwrap().push(number);
    }
}

impl sink::Server for Drain {
    fn write(&self, params: sink::WriteParams, _: sink::WriteResults<'_>) -> Result<()> {
        if let Some(gate) = &self.gate {
            gate.recv_timeout(DEADLINE).expect("the gate opens");
        }
        match params.get()?.get_number() {
            13 => Err(Error::failed("not that one")),
            number => {
                self.push(number);
                Ok(())
            }
        }
    }

    fn tick(&self, _: sink::TickParams, _: sink::TickResults<'_>) -> Result<()> {
        self.push(0);
        Ok(())
    }

    fn pass(&self, params: sink::PassParams, _: sink::PassResults<'_>) -> Result<()> {
        self.push(params.get()?.get_limit().into());
        Ok(())
    }

    fn seen(&self, _: sink::SeenParams, mut results: sink::SeenResults<'_>) -> Result<()> {
        results.get().set_numbers(&**self.numbers.lock().unwrap())?;
        Ok(())
    }
}

fn drain() -> sink::Client {
    sink::Client::new(Drain::default())
}

fn write(sink: &sink::Client, stream: &Stream, number: u64, pad: usize) -> Result<()> {
    sink.write(stream, |mut params| {
        params.set_number(number);
        params.init_pad(pad as u32);
    })
}

fn seen(sink: &sink::Client) -> Vec<u64> {
    sink.seen().soon().unwrap().get().unwrap().get_numbers().unwrap().iter().collect()
}

fn streamed_calls_arrive_in_order(setting: Setting) {
    offered(setting, drain(), |sink| {
        let stream = Stream::with_window(1000);
        for number in 100..300 {
            write(&sink, &stream, number, 50).unwrap();
        }
        stream.finish().unwrap();
        assert_eq!(seen(&sink), (100..300).collect::<Vec<_>>());
        // A stream can be finished often, and used again.
        stream.finish().unwrap();
        write(&sink, &stream, 1, 0).unwrap();
        stream.finish().unwrap();
        assert_eq!(seen(&sink).len(), 201);
    });
}

fn a_stream_is_in_order_with_plain_calls(setting: Setting) {
    offered(setting, drain(), |sink| {
        let stream = Stream::new();
        for number in 1..=10 {
            write(&sink, &stream, number, 0).unwrap();
            // Not finished: what was streamed before is there all the same.
            assert_eq!(seen(&sink).len(), number as usize);
        }
        stream.finish().unwrap();
    });
}

fn a_full_window_blocks_its_sender(setting: Setting) {
    let (object, gate) = Drain::gated();
    offered(setting, object, |sink| {
        let stream = Stream::with_window(500);
        let (sender, sent) = unbounded();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 20..40 {
                    write(&sink, &stream, number, 1000).unwrap();
                    sender.send(number).unwrap();
                }
            });
            // One is in the window, and one more by which the largest call widens it.
            assert_eq!([(&sent).soon(), (&sent).soon()], [20, 21]);
            for number in 22..40 {
                assert!(sent.is_empty());
                gate.send(()).unwrap();
                assert_eq!((&sent).soon(), number);
            }
            (0..2).for_each(|_| gate.send(()).unwrap());
        });
        stream.finish().unwrap();
    });
}

fn the_first_failure_is_told(setting: Setting) {
    offered(setting, drain(), |sink| {
        let stream = Stream::new();
        for number in [12, 13, 14] {
            // Whether the failure is known by the third is a matter of time.
            if let Err(error) = write(&sink, &stream, number, 0) {
                assert!(number == 14 && error.to_string().contains("not that one"), "{error}");
            }
        }
        assert!(why(stream.finish()).contains("not that one"));
        assert!(why(write(&sink, &stream, 15, 0)).contains("not that one"));
        assert!(why(stream.finish()).contains("not that one"));
        // What is sent later relied on it: other streams fail too, and plain calls.
        let another = Stream::new();
        let broken = "an earlier streaming call failed: not that one";
        let sent = write(&sink, &another, 16, 0);
        assert!(why(sent.and_then(|()| another.finish())).contains(broken));
        assert!(why(sink.seen().soon()).contains(broken));
    });
}

fn a_failure_ends_a_wait_for_room(setting: Setting) {
    let (object, gate) = Drain::gated();
    offered(setting, object, |sink| {
        let stream = Stream::with_window(10);
        write(&sink, &stream, 13, 1000).unwrap();
        write(&sink, &stream, 1, 1000).unwrap();
        std::thread::scope(|scope| {
            let third = scope.spawn(|| write(&sink, &stream, 2, 1000));
            gate.send(()).unwrap();
            assert!(why(third.join().unwrap()).contains("not that one"));
        });
        gate.send(()).unwrap();
        assert!(stream.finish().is_err());
    });
}

fn streaming_methods_without_params_and_with_a_struct(setting: Setting) {
    offered(setting, drain(), |sink| {
        let stream = Stream::new();
        sink.tick(&stream).unwrap();
        sink.pass(&stream, |mut query| query.set_limit(3)).unwrap();
        sink.pass(&stream, |_| ()).unwrap();
        sink.tick_request().send(&stream).unwrap();
        stream.finish().unwrap();
        assert_eq!(seen(&sink), [0, 3, 7, 0]);
    });
}

fn an_error_in_filling_the_params_sends_nothing(setting: Setting) {
    offered(setting, drain(), |sink| {
        let stream = Stream::new();
        let sent = sink.write(&stream, |_| Err(capnp::Error::failed("no number".into())));
        assert!(why(sent).contains("no number"));
        // It is not the stream's failure.
        write(&sink, &stream, 4, 0).unwrap();
        stream.finish().unwrap();
        assert_eq!(seen(&sink), [4]);
    });
}

fn threads_share_a_stream(setting: Setting) {
    offered(setting, drain(), |sink| {
        let stream = Stream::with_window(300);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (sink, stream) = (&sink, &stream);
                scope.spawn(move || {
                    (0..25).for_each(|i| write(sink, stream, 100 + thread * 25 + i, 20).unwrap());
                });
            }
        });
        stream.finish().unwrap();
        let mut seen = seen(&sink);
        // Each thread's own calls are in order.
        for thread in 0..4 {
            let own = (100 + thread * 25)..(125 + thread * 25);
            assert!(seen.iter().filter(|number| own.contains(*number)).is_sorted());
        }
        seen.sort_unstable();
        assert_eq!(seen, (100..200).collect::<Vec<_>>());
    });
}

fn an_unwritten_streaming_method_fails_the_stream(setting: Setting) {
    struct Blocked;
    impl sink::Server for Blocked {}
    offered(setting, sink::Client::new(Blocked), |sink| {
        let stream = Stream::new();
        sink.tick(&stream).unwrap();
        let error = stream.finish().unwrap_err();
        assert_eq!(error.kind(), ExceptionKind::Unimplemented);
        assert!(error.to_string().contains("the method `tick` of `Sink` is not implemented"), "{error}");
    });
}

fn a_streaming_call_has_a_timeout(setting: Setting) {
    let (object, gate) = Drain::gated();
    offered(setting, object, |sink| {
        let stream = Stream::new();
        sink.write_request().timeout(std::time::Duration::from_millis(1)).send(&stream).unwrap();
        assert_eq!(stream.finish().unwrap_err().kind(), ExceptionKind::Overloaded);
        gate.send(()).unwrap();
    });
}

fn params_of_a_streaming_call_are_set_from_a_reader(setting: Setting) {
    offered(setting, drain(), |sink| {
        let stream = Stream::new();
        let mut request = sink.pass_request();
        request.set(library::WIDEST.get().unwrap()).unwrap();
        request.send(&stream).unwrap();
        stream.finish().unwrap();
        assert_eq!(seen(&sink), [65535]);
    });
}
