# The messages that two vats exchange.
#
# The layout and the IDs are those of every implementation of Cap'n Proto RPC, as of version 2; the words
# are ours. Names are as in that version: where the schema of 2017 had other names for what three vats use,
# the old name is given beside the new one.
#
# Throughout, "sender" is the vat that sends the message at hand. An ID is always named from the sender's
# point of view: what the sender calls its question, the receiver calls its answer.

@0xb312981b2552a250;

using QuestionId = UInt32;
# Names a call of the sender's, or another message that is answered by a `Return`. The vat that asks chooses
# the number. It is free again once the `Finish` was sent and the `Return` was received.

using AnswerId = QuestionId;
# Names a question that the receiver asked: the same number, seen from the side that answers.

using ExportId = UInt32;
# Names a capability that the sender hosts, or stands in for. The exporting vat chooses the number. Each time
# the number travels in a descriptor the other side holds one reference more; `Release` gives references
# back, and with the last one the number is free again.

using ImportId = ExportId;
# Names a capability that the receiver exported: the same number, seen from the side that uses it.

struct Message {
  # One message. A connection carries a sequence of these each way.

  union {
    unimplemented @0 :Message;
    # A message of the receiver's, sent back because the sender does not know it or some part of it.

    abort @1 :Exception;
    # The connection ends, for this reason. Nothing follows.

    bootstrap @8 :Bootstrap;
    # Asks for the capability that the receiver offers to whoever connects.

    call @2 :Call;
    # Calls a method.

    return @3 :Return;
    # Answers a question.

    finish @4 :Finish;
    # Says that an answer is no longer needed, and cancels the call if it still runs.

    resolve @5 :Resolve;
    # Says what a promise that was exported has become.

    release @6 :Release;
    # Gives back references to a capability.

    disembargo @13 :Disembargo;
    # Marks the end of the calls that took the long way, so that later ones may take the short one.

    obsoleteSave @7 :AnyPointer;
    # Was never used. See `persistent.capnp`.

    obsoleteDelete @9 :AnyPointer;
    # Was never used.

    provide @10 :Provide;
    # Level 3: holds a capability ready for a third vat.

    accept @11 :Accept;
    # Level 3: picks up what another vat had provided.

    thirdPartyAnswer @14 :ThirdPartyAnswer;
    # Level 3: takes over the answering of a call that the receiver had made to another vat.

    join @12 :Join;
    # Level 4: asks whether several capabilities are one.
  }
}

struct Bootstrap {
  # Asks for the receiver's bootstrap capability. The answer is a `Return` whose content is that capability
  # itself, not a struct around it.

  questionId @0 :QuestionId;
  # A new question.

  deprecatedObjectId @1 :AnyPointer;
  # Once chose among several bootstrap capabilities. Ignored.
}

struct Call {
  # Calls a method of a capability that the receiver hosts or knows the way to.

  questionId @0 :QuestionId;
  # A new question.

  target @1 :MessageTarget;
  # What to call.

  interfaceId @2 :UInt64;
  # The ID of the interface that declares the method. It may be one that the object's own interface extends.

  methodId @3 :UInt16;
  # The method's ordinal in that interface.

  allowThirdPartyTailCall @8 :Bool = false;
  # Level 3: the `Return` may say `awaitFromThirdParty`.

  noPromisePipelining @9 :Bool = false;
  # The sender promises to make no calls on this call's unfinished results. The receiver need not prepare for
  # any.

  onlyPromisePipeline @10 :Bool = false;
  # The sender wants this call only to make calls on its results, and never looks at the results themselves:
  # no `Return` is needed. Since the sender can't tell whether one comes, such questions have numbers with
  # the top bit set, handed out in turn.

  params @4 :Payload;
  # The arguments. The content is the method's parameter struct.

  sendResultsTo :union {
    # Where the results go.

    caller @5 :Void;
    # To the sender, in the `Return`.

    yourself @6 :Void;
    # Nowhere: the receiver keeps them. The sender is about to answer a question of the receiver's with
    # `takeFromOtherQuestion`, naming this call, so that results which are wanted where they arise do not
    # travel twice. The `Return` says `resultsSentElsewhere`.

    thirdParty @7 :ThirdPartyToContact;
    # Level 3: to another vat. (In 2017 the type was called `RecipientId`.)
  }
}

struct Return {
  # Answers a question: each question gets exactly one.

  answerId @0 :AnswerId;
  # The question that is answered.

  releaseParamCaps @1 :Bool = true;
  # The sender gives back one reference for each capability in the params of the call. If false, it sends
  # `Release` for each of them in its own time.

  noFinishNeeded @8 :Bool = false;
  # The sender has forgotten the question already, so the receiver need not send `Finish`; if it does, that
  # is ignored. Only allowed where the results hold no capabilities.

  union {
    results @2 :Payload;
    # The call succeeded. The content is the method's result struct, or, for `Bootstrap` and `Accept`, a
    # capability.

    exception @3 :Exception;
    # The call failed.

    canceled @4 :Void;
    # The receiver's `Finish` came first.

    resultsSentElsewhere @5 :Void;
    # The results are where the call's `sendResultsTo` wanted them.

    takeFromOtherQuestion @6 :QuestionId;
    # The results are those of this question, which the sender asked the receiver earlier with
    # `sendResultsTo.yourself`. Each such question can be named once.

    awaitFromThirdParty @7 :ThirdPartyToAwait;
    # Level 3: another vat answers. (In 2017: `acceptFromThirdParty`, of type `ThirdPartyCapId`.)
  }
}

struct Finish {
  # The sender makes no more use of an answer: no further call names it as a target. If the call has not
  # returned, the sender does not care for its result either, and the receiver may cancel it.

  questionId @0 :QuestionId;
  # The question.

  releaseResultCaps @1 :Bool = true;
  # The sender gives back one reference for each capability in the results, whether it has seen the `Return`
  # or not. If false, it sends `Release` for each of them.

  requireEarlyCancellationWorkaround @2 :Bool = true;
  # If this message comes before the call was delivered to its object, deliver the call first and cancel it
  # then. The default is what peers that do not know the field rely on; newer ones send false.
}

struct Resolve {
  # A promise that the sender had exported (as `senderPromise`) has become something else, or was broken.
  # Sent once for each promise. If the receiver has released the promise by then, it releases at once what
  # this message brings.

  promiseId @0 :ExportId;
  # The promise. Naming it here counts as no reference.

  union {
    cap @1 :CapDescriptor;
    # What the promise has become. From now on the sender passes everything that is addressed to the promise
    # to exactly this capability, even if it is itself a promise that resolves later.

    exception @2 :Exception;
    # Why the promise was broken.
  }
}

struct Release {
  # The sender gives back references to a capability of the receiver's.

  id @0 :ImportId;
  # The capability.

  referenceCount @1 :UInt32;
  # How many of the references that the sender was given.
}

struct Disembargo {
  # Keeps calls in order when a promise turns out to lead back to the vat that holds it. Earlier calls are
  # on their way through the other vat, so new ones must wait: they are embargoed. A Disembargo follows the
  # earlier calls; when it comes back, all of them have arrived.

  target @0 :MessageTarget;
  # The promise that the earlier calls were addressed to.

  using EmbargoId = UInt32;
  # Names an embargo. The vat that embargoes chooses the number.

  using ThirdPartyEmbargoId = Data;
  # Names an embargo among three vats. A string that no other embargo has.

  context :union {
    # Which way the message is going.

    senderLoopback @1 :EmbargoId;
    # On its way out. The target must lead back to the sender. The receiver answers with `receiverLoopback`
    # once it has passed on all that came before.

    receiverLoopback @2 :EmbargoId;
    # On its way back, with the number that came in `senderLoopback`.

    accept @3 :ThirdPartyEmbargoId;
    # Level 3: lifts the embargo of an `Accept`. (In 2017 this was a `Void`, and beside it stood `provide`.)
  }
}

struct Provide {
  # Level 3: asks the receiver to hold a capability ready for a third vat, which sends `Accept`. Finishing
  # the question withdraws the offer.

  questionId @0 :QuestionId;
  # A new question.

  target @1 :MessageTarget;
  # The capability.

  recipient @2 :ThirdPartyToAwait;
  # Who will come for it. (In 2017: `RecipientId`.)
}

struct Accept {
  # Level 3: picks up a capability that another vat had provided. The answer is a `Return` with it.

  questionId @0 :QuestionId;
  # A new question.

  provision @1 :ThirdPartyCompletion;
  # Says which provision is meant. (In 2017: `ProvisionId`.)

  embargo @2 :Disembargo.ThirdPartyEmbargoId;
  # If not null, the answer and all calls on it wait until a `Disembargo` with this string in
  # `context.accept` has come the long way. (In 2017: a `Bool`.)
}

struct ThirdPartyAnswer {
  # Level 3: the sender answers, on this connection, a call that the receiver had made on another.

  completion @0 :ThirdPartyCompletion;
  # Says which call. The receiver has, or will get, a matching `Return.awaitFromThirdParty`.

  answerId @1 :AnswerId;
  # The call's number on this connection. Exceptionally the answering vat chooses it: bit 30 is set and
  # bit 31 is not, a range that no asking vat uses.
}

struct Join {
  # Level 4: one part of the question whether several capabilities are one and the same object's.

  questionId @0 :QuestionId;
  # A new question. The results are of type `JoinResult`.

  target @1 :MessageTarget;
  # One of the capabilities.

  keyPart @2 :JoinKeyPart;
  # This capability's part of the key that the object's host puts together.
}

struct MessageTarget {
  # What a message is addressed to.

  union {
    importedCap @0 :ImportId;
    # A capability that the receiver had exported.

    promisedAnswer @1 :PromisedAnswer;
    # A capability in the results of a question of the sender's, which need not have returned.
  }
}

struct Payload {
  # A value that may hold capabilities.

  content @0 :AnyPointer;
  # The value. A capability pointer in it holds an index into `capTable`.

  capTable @1 :List(CapDescriptor);
  # The capabilities in the value.
}

struct CapDescriptor {
  # Says which capability is meant.

  union {
    none @0 :Void;
    # None: an entry that nothing in the content uses.

    senderHosted @1 :ExportId;
    # A capability that the sender hosts. Counts as one more reference.

    senderPromise @2 :ExportId;
    # A promise of the sender's: a `Resolve` will follow. Counts as one more reference.

    receiverHosted @3 :ImportId;
    # A capability that the receiver had exported.

    receiverAnswer @4 :PromisedAnswer;
    # A capability in the results of a question of the sender's.

    thirdPartyHosted @5 :ThirdPartyCapDescriptor;
    # A capability of another vat's. A vat of level 1 uses its vine.
  }

  attachedFd @6 :UInt8 = 0xff;
  # Where the transport passes file descriptors along: the index of the one that belongs to this capability.
  # An index past their end, as the default always is, means none.
}

struct PromisedAnswer {
  # A capability that a question's results hold, or will hold.

  questionId @0 :QuestionId;
  # A question of the sender's.

  transform @1 :List(Op);
  # The way from the root of the results to the capability.

  struct Op {
    # One step of the way.

    union {
      noop @0 :Void;
      # Stay.

      getPointerField @1 :UInt16;
      # Follow a pointer of a struct: its index in the pointer section, which is not the field's ordinal.
    }
  }
}

struct ThirdPartyCapDescriptor {
  # A capability that neither the sender nor the receiver hosts.

  id @0 :ThirdPartyToContact;
  # Level 3: where its host is found, and what to ask it for. (In 2017: `ThirdPartyCapId`.)

  vineId @1 :ExportId;
  # A capability that the sender exports, and passes calls on from. Who can't reach the host uses this
  # instead; who can holds it until the capability was picked up.
}

struct Exception {
  # Something went wrong.

  reason @0 :Text;
  # What, for people.

  type @3 :Type;
  # How a program may react.

  enum Type {
    # Kinds of reaction, not kinds of error.

    failed @0;
    # Tell someone: trying again does not help.

    overloaded @1;
    # Try again later.

    disconnected @2;
    # Connect anew, then try again.

    unimplemented @3;
    # Do without: the method, or a part of the protocol, is not there.
  }

  obsoleteIsCallersFault @1 :Bool;
  # Not used. `type` took its place.

  obsoleteDurability @2 :UInt16;
  # Not used. `type` took its place.

  trace @4 :Text;
  # A stack trace from where the exception arose, if its sender cares to show one.

  details @5 :List(Detail);
  # Further facts, for programs.

  struct Detail {
    # One fact.

    detailId @0 :UInt64;
    # Says what `data` means. Unique, like the ID of a type.

    data @1 :Data;
    # The fact, in the form that `detailId` stands for.
  }
}

# The types below depend on the kind of network that the vats are in. `rpc-twoparty.capnp` defines them for
# two vats and one connection.

using SturdyRef = AnyPointer;
# Level 2: names a capability for longer than a connection lives.

using ThirdPartyCompletion = AnyPointer;
# Level 3: shown by who picks something up. (In 2017: `ProvisionId`.)

using ThirdPartyToAwait = AnyPointer;
# Level 3: describes who will come. (In 2017: `RecipientId`.)

using ThirdPartyToContact = AnyPointer;
# Level 3: describes whom to connect to. (In 2017: `ThirdPartyCapId`, and `RecipientId` in `Call`.)

using JoinKeyPart = AnyPointer;
# Level 4: one part of a secret that is whole only where all parts arrive.

using JoinResult = AnyPointer;
# Level 4: what the joined object's host says to one part.
