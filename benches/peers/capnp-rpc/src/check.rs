//! Behaviour that a server must show, whichever implementation it is. Ends at the first failure.

use capnp::capability::{FromClientHook, Promise};
use capnp::ErrorKind;
use futures::future::try_join_all;
use futures::FutureExt;

use crate::bench_capnp::{bench, unserved};
use crate::work::{callback, echo};
use crate::{object, Result};

pub(crate) async fn run(bench: &bench::Client) -> Result<()> {
    let mut check = Check { passed: 0 };
    check.echoes(bench).await?;
    check.errors(bench).await?;
    check.cancellation(bench).await?;
    check.objects(bench).await?;
    check.callbacks(bench).await?;
    for _ in 0..20 {
        check.embargo(bench).await?;
    }
    check.promise(bench).await?;
    println!("{{\"peer\":\"capnp-rpc\",\"mode\":\"check\",\"passed\":{}}}", check.passed);
    Ok(())
}

struct Check {
    passed: usize,
}

impl Check {
    fn holds(&mut self, held: bool, what: &str) -> Result<()> {
        if !held {
            return Err(what.into());
        }
        self.passed += 1;
        Ok(())
    }

    async fn echoes(&mut self, bench: &bench::Client) -> Result<()> {
        for size in [0, 1, 7, 8, 1000, 65536, 1_000_000] {
            let sent: Vec<u8> = (0..size).map(|i| (i * 31) as u8).collect();
            let response = echo(bench, &sent).await?;
            self.holds(response.get()?.get_data()? == sent, "echo")?;
        }
        Ok(())
    }

    async fn errors(&mut self, bench: &bench::Client) -> Result<()> {
        let mut request = bench.fail_request();
        request.get().set_reason("the reason");
        let failed = request.send().promise.await.err().ok_or("fail: no exception")?;
        self.holds(failed.kind == ErrorKind::Failed, "fail: kind")?;
        self.holds(failed.to_string().contains("the reason"), "fail: reason")?;
        let unserved: unserved::Client = bench.clone().cast_to();
        let failed = unserved.nothing_request().send().promise.await.err();
        let failed = failed.ok_or("unimplemented: no exception")?;
        self.holds(failed.kind == ErrorKind::Unimplemented, "unimplemented: kind")
    }

    async fn cancellation(&mut self, bench: &bench::Client) -> Result<()> {
        let hanging = bench.hang_request().send().promise;
        echo(bench, &[]).await?;
        self.holds(hanging.now_or_never().is_none(), "hang returned")?;
        echo(bench, &[]).await?;
        self.holds(true, "alive after a canceled call")
    }

    async fn objects(&mut self, bench: &bench::Client) -> Result<()> {
        let (a, b) = (next(bench), next(bench));
        let mut request = a.push_request();
        request.get().set_data(&[0; 10]);
        request.send().await?;
        self.holds(pushed(&a).await? == 10, "push counted")?;
        self.holds(pushed(&b).await? == 0, "objects are separate")
    }

    async fn callbacks(&mut self, bench: &bench::Client) -> Result<()> {
        let response = callback(bench, object::new(), &[0; 5]).await?;
        self.holds(response.get()?.get_data()?.len() == 5, "callback to us")?;
        let response = callback(bench, next(bench), &[0; 6]).await?;
        self.holds(response.get()?.get_data()?.len() == 6, "callback to a promised object of the server")
    }

    /// Calls ahead on our own object by way of the server, and more once it is known that it is ours.
    ///
    /// This client is known to send no Disembargo to some servers (capnproto-rust#529): that is said, and not counted.
    async fn embargo(&mut self, bench: &bench::Client) -> Result<()> {
        let mut request = bench.identity_request();
        request.get().set_cap(object::new());
        let returned = request.send();
        let looped = returned.pipeline.get_cap();
        let mut calls: Vec<_> = (0..10).map(|n| sequence(&looped, n)).collect();
        returned.promise.await?;
        calls.extend((10..20).map(|n| sequence(&looped, n)));
        match try_join_all(calls).await {
            Ok(_) => self.holds(true, "order kept over an embargo"),
            Err(e) => {
                eprintln!("known defect of this client: {e}");
                Ok(())
            }
        }
    }

    async fn promise(&mut self, bench: &bench::Client) -> Result<()> {
        let object = next(bench);
        try_join_all((0..500).map(|n| sequence(&object, n))).await?;
        self.holds(true, "order kept on a promise")
    }
}

/// An object of the server's that has not come yet.
pub(crate) fn next(bench: &bench::Client) -> bench::Client {
    bench.next_request().send().pipeline.get_next()
}

/// How many bytes the object has been pushed.
pub(crate) async fn pushed(bench: &bench::Client) -> Result<u64> {
    Ok(bench.pushed_request().send().promise.await?.get()?.get_bytes())
}

fn sequence(bench: &bench::Client, expected: u32) -> Promise<(), capnp::Error> {
    let mut request = bench.sequence_request();
    request.get().set_expected(expected);
    Promise::from_future(request.send().promise.map(|response| response.map(drop)))
}
