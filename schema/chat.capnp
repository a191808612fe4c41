# A chat room: an example of callbacks. The server holds a capability of every participant, and calls it.

@0x85ad03022c6b33c3;

interface ChatRoom {
  # A room that people talk in.

  join @0 (name :Text, participant :Participant) -> (session :Session);
  # Enters the room under a name. Fails if the name is taken. What is said in the room from now on is passed
  # to `participant`.
}

interface Participant {
  # Someone in a room: implemented by the client.

  receive @0 (from :Text, text :Text) -> ();
  # Something was said by the participant of that name, which may be this one.
}

interface Session {
  # A participant's seat in a room. Dropping it is as good as `leave`.

  say @0 (text :Text) -> ();
  # Passes a text to all participants, the speaker included.

  leave @1 () -> ();
  # Leaves the room. The name is free again, and further calls on this session fail.

  members @2 () -> (names :List(Text));
  # Returns the names of all participants, sorted.
}
