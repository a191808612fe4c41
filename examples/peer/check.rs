//! Behaviour that a server must show, whichever implementation it is. Ends at the first failure.

use capnp_threads::{Capability, ExceptionKind, Pool, RemotePromise, Stream, WaitError};

use crate::generated::bench_capnp::{bench, unserved};
use crate::server::{callback, Bench};
use crate::setup::Setup;
use crate::Result;

pub(crate) fn run(setup: &Setup, address: &str) -> Result<()> {
    let connection = setup.vat().connect(address)?;
    let bench = connection.bootstrap();
    let mut check = Check { passed: 0 };
    for (name, part) in PARTS {
        part(&mut check, &bench).map_err(|e| format!("{name}: {e}"))?;
    }
    println!("{{\"peer\":\"capnp-threads\",\"mode\":\"check\",\"passed\":{}}}", check.passed);
    Ok(())
}

type Part = fn(&mut Check, &bench::Client) -> Result<()>;

const PARTS: [(&str, Part); 7] = [
    ("echo", Check::echo),
    ("errors", Check::errors),
    ("cancellation", Check::cancellation),
    ("objects", Check::objects),
    ("callbacks", Check::callbacks),
    ("embargo", Check::embargoes),
    ("promise", Check::promise),
];

struct Check {
    passed: usize,
}

impl Check {
    fn ok(&mut self, held: bool, what: &str) -> Result<()> {
        if !held {
            return Err(what.into());
        }
        self.passed += 1;
        Ok(())
    }

    fn fails<R: 'static>(
        &mut self,
        call: RemotePromise<R>,
        kind: ExceptionKind,
        what: &str,
    ) -> Result<String> {
        match call.wait() {
            Ok(_) => Err(format!("{what}: no exception").into()),
            Err(e) => {
                self.ok(e.kind() == kind, &format!("{what}: kind of `{e}`"))?;
                Ok(e.to_string())
            }
        }
    }

    fn echo(&mut self, bench: &bench::Client) -> Result<()> {
        for size in [0, 1, 7, 8, 1000, 65536, 1_000_000] {
            let sent: Vec<u8> = (0..size).map(|i| (i * 31) as u8).collect();
            let response = bench.echo(|mut params| params.set_data(&sent)).wait()?;
            self.ok(response.get()?.get_data()? == sent, "echo")?;
        }
        Ok(())
    }

    fn errors(&mut self, bench: &bench::Client) -> Result<()> {
        let call = bench.fail(|mut params| params.set_reason("the reason"));
        let got = self.fails(call, ExceptionKind::Failed, "fail")?;
        self.ok(got.contains("the reason"), "fail: reason")?;
        let call = bench.clone().cast_to::<unserved::Client>().nothing();
        self.fails(call, ExceptionKind::Unimplemented, "unimplemented")?;
        Ok(())
    }

    fn cancellation(&mut self, bench: &bench::Client) -> Result<()> {
        let hanging = bench.hang();
        bench.echo_request().send().wait()?;
        self.ok(matches!(hanging.try_take(), Err(WaitError::Pending(_))), "hang returned")?;
        bench.echo_request().send().wait()?;
        self.ok(true, "alive after a canceled call")
    }

    fn objects(&mut self, bench: &bench::Client) -> Result<()> {
        let (a, b) = (next(bench), next(bench));
        let stream = Stream::new();
        a.push(&stream, |mut params| params.set_data(&[0; 10]))?;
        stream.finish()?;
        self.ok(a.pushed().wait()?.get()?.get_bytes() == 10, "push counted")?;
        self.ok(b.pushed().wait()?.get()?.get_bytes() == 0, "objects are separate")
    }

    fn callbacks(&mut self, bench: &bench::Client) -> Result<()> {
        let ours = bench::Client::with_pool(Bench::default(), Pool::in_place());
        let response = callback(bench, ours, &[0; 5]).wait()?;
        self.ok(response.get()?.get_data()?.len() == 5, "callback to us")?;
        let response = callback(bench, next(bench), &[0; 6]).wait()?;
        self.ok(response.get()?.get_data()?.len() == 6, "callback to a promised object of the server")
    }

    fn embargoes(&mut self, bench: &bench::Client) -> Result<()> {
        (0..20).try_for_each(|_| self.embargo(bench))
    }

    /// Calls ahead on our own object by way of the server, and more once it is known that it is ours.
    fn embargo(&mut self, bench: &bench::Client) -> Result<()> {
        let ours = bench::Client::with_pool(Bench::default(), Pool::in_place());
        let RemotePromise { promise, pipeline } = bench.identity(|mut params| params.set_cap(ours));
        let looped = pipeline.get().get_cap();
        let mut calls: Vec<_> = (0..10).map(|n| sequence(&looped, n)).collect();
        promise.wait()?;
        calls.extend((10..20).map(|n| sequence(&looped, n)));
        for call in calls {
            call.wait()?;
        }
        self.ok(true, "order kept over an embargo")
    }

    fn promise(&mut self, bench: &bench::Client) -> Result<()> {
        let next = next(bench);
        let calls: Vec<_> = (0..500).map(|n| sequence(&next, n)).collect();
        for call in calls {
            call.wait()?;
        }
        self.ok(true, "order kept on a promise")
    }
}

/// An object of the server's that has not come yet.
fn next(bench: &bench::Client) -> bench::Client {
    bench.next().pipeline.get().get_next()
}

fn sequence(bench: &bench::Client, expected: u32) -> RemotePromise<bench::sequence_results::Owned> {
    bench.sequence(|mut params| params.set_expected(expected))
}
