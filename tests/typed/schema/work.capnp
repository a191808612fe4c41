# An object with which everything that a call can do is done.

@0xd78642be6e48e100;

struct Sum {
  sum @0 :Int64;
}

struct Opened {
  name @0 :Text;
  room @1 :Room;
  group :group {
    worker @2 :Worker;
    deeper :group {
      room @3 :Room;
    }
  }
}

struct Room {
  door @0 :Worker;
  next @1 :Room;
  doors @2 :List(Worker);
}

enum Kind {
  failed @0;
  overloaded @1;
  disconnected @2;
  unimplemented @3;
}

interface Worker {
  add @0 (a :Int64, b :Int64) -> Sum;
  fail @1 (kind :Kind, why :Text) -> Sum;
  panic @2 (with :Text) -> ();
  unwritten @3 (text :Text) -> (text :Text);
  read @4 (what :AnyPointer) -> (text :Text);
  open @5 (name :Text) -> Opened;
  later @6 (text :Text) -> (text :Text);
  forward @7 (to :Worker, a :Int64, b :Int64) -> Sum;
  linger @8 (note :Text) -> Sum;
  ahead @9 () -> Opened;
  beside @10 (text :Text) -> (text :Text);
  who @11 () -> (connected :Bool, peer :Text);
  call @12 (callback :Worker, a :Int64, b :Int64) -> Sum;
  next @13 () -> (worker :Worker);
  keep @14 (worker :Worker) -> (kept :Worker);
}

interface Stranger {
  # What no worker implements.

  speak @0 (text :Text) -> (text :Text);
}
