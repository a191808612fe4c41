//! The parts of a call, each by itself.
//!
//! ```text
//! cargo bench --bench parts                   how long each takes, by criterion, and its allocations
//! cargo bench --bench parts -- --test         only runs each
//! cargo bench --bench parts -- count          lists those whose instructions can be counted
//! cargo bench --bench parts -- count NAME     runs one for `benches/instructions/check`, and prints its operations
//!                                             and the allocations of one
//! ```
//!
//! Parts on one thread are driven without any other: whole calls too, over connections in memory whose stages are
//! taken step by step.

mod allocations;
mod calls;
#[path = "../../examples/generated/mod.rs"]
mod generated;
mod messages;
mod meter;
mod queues;
#[path = "../../examples/peer/server.rs"]
mod server;
mod snapshots;
mod transactions;
mod world;

use criterion::Criterion;
use meter::Part;

/// How many operations are counted.
const COUNTED: u64 = 640;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["count"] => parts().filter(|part| part.counted).for_each(|part| println!("{}", part.name)),
        ["count", name] => count(parts().find(|part| part.name == name).expect("there is such a part")),
        _ => measure(),
    }
}

fn parts() -> impl Iterator<Item = &'static Part> {
    [messages::PARTS, queues::PARTS, transactions::PARTS, calls::PARTS, snapshots::PARTS]
        .into_iter()
        .flatten()
}

fn count(part: &Part) {
    let mut run = part.warmed_up();
    let (_, allocations) = part.run(&mut run, COUNTED);
    println!("{COUNTED} {allocations:.2}");
}

fn measure() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut table = Vec::new();
    for part in parts() {
        criterion.bench_function(part.name, |bencher| {
            let mut run = part.warmed_up();
            bencher.iter_custom(|operations| part.run(&mut run, operations).0.mul_f64(operations as f64));
            table.push((part.name, part.run(&mut run, COUNTED).1));
        });
    }
    criterion.final_summary();
    println!("{:<40} allocations", "");
    table.iter().for_each(|(name, allocations)| println!("{name:<40} {allocations:.2}"));
}
