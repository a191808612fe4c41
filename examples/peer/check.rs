//! Behaviour that a server must show, whichever implementation it is. Ends at the first failure.

use capnp_threads::{Client, ExceptionKind, RemotePromise, Stream, Vat};

use crate::bench::{data, object, BenchClient};
use crate::server::Bench;
use crate::Result;

pub(crate) fn run(address: &str) -> Result<()> {
    let connection = Vat::new().connect(address)?;
    let bench = BenchClient(connection.bootstrap::<Client>());
    let mut check = Check { passed: 0 };
    for (name, part) in PARTS {
        part(&mut check, &bench).map_err(|e| format!("{name}: {e}"))?;
    }
    println!("{{\"peer\":\"capnp-threads\",\"mode\":\"check\",\"passed\":{}}}", check.passed);
    Ok(())
}

type Part = fn(&mut Check, &BenchClient) -> Result<()>;

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

    fn fails(&mut self, call: RemotePromise, kind: ExceptionKind, what: &str) -> Result<String> {
        match call.wait() {
            Ok(_) => Err(format!("{what}: no exception").into()),
            Err(e) => {
                self.ok(e.kind() == kind, &format!("{what}: kind of `{e}`"))?;
                Ok(e.to_string())
            }
        }
    }

    fn echo(&mut self, bench: &BenchClient) -> Result<()> {
        for size in [0, 1, 7, 8, 1000, 65536, 1_000_000] {
            let sent: Vec<u8> = (0..size).map(|i| (i * 31) as u8).collect();
            let response = bench.echo(&sent).wait()?;
            self.ok(data(&response)? == sent, "echo")?;
        }
        Ok(())
    }

    fn errors(&mut self, bench: &BenchClient) -> Result<()> {
        let got = self.fails(bench.fail("the reason"), ExceptionKind::Failed, "fail")?;
        self.ok(got.contains("the reason"), "fail: reason")?;
        self.fails(bench.unserved(), ExceptionKind::Unimplemented, "unimplemented")?;
        Ok(())
    }

    fn cancellation(&mut self, bench: &BenchClient) -> Result<()> {
        let hanging = bench.hang();
        bench.echo(&[]).wait()?;
        self.ok(hanging.try_take().map(drop).is_err(), "hang returned")?;
        bench.echo(&[]).wait()?;
        self.ok(true, "alive after a canceled call")
    }

    fn objects(&mut self, bench: &BenchClient) -> Result<()> {
        let (a, b) = (object(&bench.next().pipeline), object(&bench.next().pipeline));
        let stream = Stream::new();
        stream.send(a.push_request(&[0; 10]))?;
        stream.finish()?;
        self.ok(a.pushed()? == 10, "push counted")?;
        self.ok(b.pushed()? == 0, "objects are separate")
    }

    fn callbacks(&mut self, bench: &BenchClient) -> Result<()> {
        let ours = Client::new(Bench::default());
        let response = bench.callback(ours, &[0; 5]).wait()?;
        self.ok(data(&response)?.len() == 5, "callback to us")?;
        let theirs = object(&bench.next().pipeline);
        let response = bench.callback(theirs.0, &[0; 6]).wait()?;
        self.ok(data(&response)?.len() == 6, "callback to a promised object of the server")
    }

    fn embargoes(&mut self, bench: &BenchClient) -> Result<()> {
        (0..20).try_for_each(|_| self.embargo(bench))
    }

    /// Calls ahead on our own object by way of the server, and more once it is known that it is ours.
    fn embargo(&mut self, bench: &BenchClient) -> Result<()> {
        let RemotePromise { promise, pipeline } = bench.identity(Client::new(Bench::default()));
        let looped = object(&pipeline);
        let mut calls: Vec<_> = (0..10).map(|n| looped.sequence(n)).collect();
        promise.wait()?;
        calls.extend((10..20).map(|n| looped.sequence(n)));
        for call in calls {
            call.wait()?;
        }
        self.ok(true, "order kept over an embargo")
    }

    fn promise(&mut self, bench: &BenchClient) -> Result<()> {
        let next = object(&bench.next().pipeline);
        let calls: Vec<_> = (0..500).map(|n| next.sequence(n)).collect();
        for call in calls {
            call.wait()?;
        }
        self.ok(true, "order kept on a promise")
    }
}
