# What the guide's programs talk about.

@0xb6df5d35f5ea6d4f;

interface Archive {
  # A store of files.

  open @0 (name :Text) -> (file :File);
  # Opens a file, which is created if there is none of that name.

  list @1 () -> (names :List(Text));
  # The names of all files, sorted.
}

interface File {
  # A text that grows.

  read @0 () -> (text :Text);
  # All that was written so far.

  write @1 (text :Text) -> stream;
  # Appends a piece.

  size @2 () -> (bytes :UInt64);
  # How long the text is.

  follow @3 (follower :Follower) -> (subscription :Subscription);
  # Tells `follower` of each piece, until the subscription is dropped.
}

interface Follower {
  # Who wants to be told.

  wrote @0 (text :Text) -> ();
  # A piece was appended.
}

interface Subscription {
  # Dropped to end it.
}
