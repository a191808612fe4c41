//! The thinnest path through all layers.
#[path = "../examples/generated/mod.rs"]
mod generated;

use capnp_threads::{Call, Capability, Client, Result, Server, Vat};
use generated::hello_capnp::hello;

struct Greeter;

impl Server for Greeter {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        let name = call.params_as::<hello::say_hello_params::Reader>()?.get_name()?.to_string()?;
        call.init_results::<hello::say_hello_results::Builder>().set_greeting(&*format!("Hello, {name}!"));
        Ok(())
    }
}

#[test]
fn says_hello_over_tcp() {
    let listener = Vat::new().bootstrap(Client::new(Greeter)).listen("127.0.0.1:0").unwrap();
    let connection = Vat::new().connect(listener.local_addr()).unwrap();
    let greeter = connection.bootstrap::<Client>();
    let mut request = greeter.request(0, 0);
    request.init::<hello::say_hello_params::Builder>().set_name("you");
    let response = request.send().wait().unwrap();
    let greeting = response.get_as::<hello::say_hello_results::Reader>().unwrap().get_greeting().unwrap();
    assert_eq!(greeting, "Hello, you!");
}
