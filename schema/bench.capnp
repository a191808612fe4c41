# What the measurements and the tests against other implementations call. The layout and the IDs are those of
# the other programs that serve and call it.

@0xd1f0c2a6b38e4957;

interface Bench {
  # An object with a method for each thing to measure or to try.

  echo @0 (data :Data) -> (data :Data);
  # Returns what it was given.

  next @1 () -> (next :Bench);
  # Returns a new object of the same kind, for chains of pipelined calls.

  callback @2 (target :Bench, data :Data) -> (data :Data);
  # Calls `target.echo(data)` and returns what that returned.

  push @3 (data :Data) -> stream;
  # Counts the bytes of a stream.

  pushed @4 () -> (bytes :UInt64);
  # Returns the count of this object's `push`.

  hang @5 () -> ();
  # Returns only when it is canceled.

  fail @6 (reason :Text) -> ();
  # Fails, with `reason` in the reason.

  identity @7 (cap :Bench) -> (cap :Bench);
  # Returns the capability that it was given. If that is the caller's own, the results lead back to the
  # caller, and calls on them need an embargo.

  sequence @8 (expected :UInt32) -> ();
  # Counts this object's calls of the method, from 0, and fails where the count is not `expected`.
}

interface Unserved {
  # Nobody serves this. Calls fail as `unimplemented`.

  nothing @0 () -> ();
  # Never gets called.
}
