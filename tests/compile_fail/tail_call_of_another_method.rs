//! A call that is handed on to a method with other results.
#[path = "../../examples/generated/mod.rs"]
mod generated;

use capnp_threads::Result;
use generated::calculator_capnp::calculator;

struct Forwarding(calculator::Client);

impl calculator::Server for Forwarding {
    fn evaluate(&self, _: calculator::EvaluateParams, results: calculator::EvaluateResults) -> Result<()> {
        results.tail_call(self.0.get_operator_request())
    }
}

fn main() {}
