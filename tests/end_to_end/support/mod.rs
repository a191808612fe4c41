//! What the tests of whole vats share: objects out of closures, calls of text, and waits that end.

pub mod alone;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub mod cipher;
pub mod gate;
pub mod wires;

use std::time::Duration;

use capnp::any_pointer;
use capnp::traits::FromPointerReader;
use capnp_threads::{
    Call, Capability, Client, Error, Params, Promise, RemotePromise, Request, Response, Result, Server,
};
use crossbeam_channel::Receiver;

/// Turns a hang into a failure.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The interface of all objects here. Which methods it has is up to each test.
pub const TEST: u64 = 0xe2e0_7e57_e2e0_7e57;

/// An object out of a closure that answers each call.
struct Object<F>(F);

impl<F: Fn(&mut Call) -> Result<()> + Send + Sync + 'static> Server for Object<F> {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        assert_eq!(call.interface_id(), TEST);
        (self.0)(call)
    }
}

pub fn server(answer: impl Fn(&mut Call) -> Result<()> + Send + Sync + 'static) -> impl Server {
    Object(answer)
}

pub fn object(answer: impl Fn(&mut Call) -> Result<()> + Send + Sync + 'static) -> Client {
    Client::new(server(answer))
}

/// Returns the text that it is called with.
pub fn echo() -> Client {
    object(|call| {
        let text = text(call)?;
        reply(call, &text)
    })
}

/// The text in a call's params.
pub fn text(call: &Call) -> Result<String> {
    text_in(call.params())
}

pub fn text_in(params: &Params) -> Result<String> {
    Ok(params.get_as::<capnp::text::Reader>()?.to_string()?)
}

/// The capability in a call's params.
pub fn cap(call: &Call) -> Result<Client> {
    Ok(call.params().get()?.get_as_capability()?)
}

/// Makes a text the results of a call.
pub fn reply(call: &mut Call, text: &str) -> Result<()> {
    Ok(call.results().set_as(text)?)
}

/// Makes a capability the results of a call.
pub fn reply_cap(call: &mut Call, client: &Client) {
    put(call.results(), client);
}

pub fn put(mut place: any_pointer::Builder<'_>, client: &Client) {
    place.set_as_capability(Box::new(client.clone()));
}

/// A call of a method with a text.
pub fn request(client: &Client, method: u16, text: &str) -> Request {
    let mut request = client.request(TEST, method);
    request.get().set_as(text).unwrap();
    request
}

/// A call of a method with a capability.
pub fn with_cap(client: &Client, method: u16, cap: &Client) -> Request {
    let mut request = client.request(TEST, method);
    put(request.get(), cap);
    request
}

pub fn send(client: &Client, method: u16, text: &str) -> RemotePromise {
    request(client, method, text).send()
}

/// Calls a method with a text and gives the text that it returns.
pub fn ask(client: &Client, method: u16, text: &str) -> Result<String> {
    send(client, method, text).soon().map(|response| said(&response))
}

/// Calls a method with a capability and gives the capability that it returns.
pub fn exchange(client: &Client, method: u16, given: &Client) -> Result<Client> {
    with_cap(client, method, given).send().soon().map(|response| given_back(&response))
}

/// The text in a response.
pub fn said(response: &Response) -> String {
    get::<capnp::text::Reader<'_>>(response).to_string().unwrap()
}

/// The capability in a response.
pub fn given_back(response: &Response) -> Client {
    response.get().unwrap().get_as_capability().unwrap()
}

fn get<'a, T: FromPointerReader<'a>>(response: &'a Response) -> T {
    response.get_as().unwrap()
}

/// The error, as text.
pub fn why<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => panic!("an error was expected"),
        Err(e) => e.to_string(),
    }
}

/// Waiting for what will come, and failing if it does not.
pub trait Soon {
    type Output;
    #[track_caller]
    fn soon(self) -> Self::Output;
}

impl<T: Send + 'static> Soon for Promise<T> {
    type Output = Result<T>;
    fn soon(self) -> Result<T> {
        self.wait_timeout(DEADLINE).map_err(|why| why.into_failed().expect("an answer in time"))
    }
}

impl Soon for RemotePromise {
    type Output = Result<Response>;
    fn soon(self) -> Result<Response> {
        self.wait_timeout(DEADLINE).map_err(|why| why.into_failed().expect("an answer in time"))
    }
}

impl<T> Soon for &Receiver<T> {
    type Output = T;
    fn soon(self) -> T {
        self.recv_timeout(DEADLINE).unwrap_or_else(|e| panic!("nothing came: {e}"))
    }
}

/// The error of a method that a test does not expect to be called.
pub fn unexpected(call: &Call) -> Result<()> {
    Err(Error::failed(format!("unexpected call of method {}", call.method_id())))
}
