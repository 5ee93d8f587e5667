; Managed code of an image, with what a compiler for LLVM makes: calls that push arguments, derived pointers, landing
; pads, references in chains of statepoints, allocas that hold references, checks of the stack and polls in loops.
;
; Words that begin with a dollar are replaced by the test: types differ between versions of LLVM, and $CHECK and $POLL
; stand for code. $REF is a reference to an object, $REFP a place in an object that holds one, $CELL an alloca that holds
; one.
;
; Functions are hidden, so that none is taken for one of the C library.
;
; The host fills the table: call_system, poll, new(words), shade(reference), the address of the write barrier's flag,
; throw, caught.

@host = global [7 x i64] zeroinitializer
@rounds = internal global i64 1

declare i64 @llvm.read_register.i64(metadata)
declare i32 @__gxx_personality_v0(...)
declare token $STATEPOINT(i64 immarg, i32 immarg, $FCHURN, i32 immarg, i32 immarg, ...)
declare $REF $RELOCATE(token, i32 immarg, i32 immarg)

define hidden i64 @native(i64 %which, i64 %a) #0 gc "statepoint-example" {
  %call.at = load volatile i64, $P64 getelementptr inbounds ([7 x i64], $PTABLE @host, i64 0, i64 0)
  %call = inttoptr i64 %call.at to $FCALL
  %f.at = getelementptr inbounds [7 x i64], $PTABLE @host, i64 0, i64 %which
  %f = load volatile i64, $P64 %f.at
  %result = call i64 %call(i64 %f, i64 %a, i64 0)
  ret i64 %result
}

define hidden $REF @new(i64 %g, i64 %words) #0 gc "statepoint-example" {
  $CHECK
  %call.at = load volatile i64, $P64 getelementptr inbounds ([7 x i64], $PTABLE @host, i64 0, i64 0)
  %call = inttoptr i64 %call.at to $FREF
  %f = load volatile i64, $P64 getelementptr inbounds ([7 x i64], $PTABLE @host, i64 0, i64 2)
  %object = call $REF %call(i64 %f, i64 %words, i64 0)
  ret $REF %object
}

; ANCHOR: store
; Stores a reference into an object. The place is a derived pointer, live across the call of the write barrier.
define hidden void @store($REF %object, i64 %index, $REF %value) #0 gc "statepoint-example" {
entry:
  %slot = getelementptr i64, $REF %object, i64 %index
  %place = bitcast $REF %slot to $REFP
  %flag.at = load volatile i64, $P64 getelementptr inbounds ([7 x i64], $PTABLE @host, i64 0, i64 4)
  %flag.pointer = inttoptr i64 %flag.at to $P8
  %flag = load volatile i8, $P8 %flag.pointer
  %off = icmp eq i8 %flag, 0
  br i1 %off, label %write, label %report
report:
  %word = ptrtoint $REF %value to i64
  %none = call i64 @native(i64 3, i64 %word)
  br label %write
write:
  store $REF %value, $REFP %place
  ret void
}
; ANCHOR_END: store

define hidden $REF @load($REF %object, i64 %index) #0 gc "statepoint-example" {
  %slot = getelementptr i64, $REF %object, i64 %index
  %place = bitcast $REF %slot to $REFP
  %value = load $REF, $REFP %place
  ret $REF %value
}

; A tree, every node with its height in it.
define hidden $REF @build(i64 %g, i64 %height) #0 gc "statepoint-example" {
entry:
  $CHECK
  %is.leaf = icmp eq i64 %height, 0
  br i1 %is.leaf, label %leaf, label %inner
leaf:
  ret $REF null
inner:
  %less = sub i64 %height, 1
  %left = call $REF @build(i64 %g, i64 %less)
  %right = call $REF @build(i64 %g, i64 %less)
  %node = call $REF @new(i64 %g, i64 3)
  call void @store($REF %node, i64 0, $REF %left)
  call void @store($REF %node, i64 1, $REF %right)
  %number = getelementptr i64, $REF %node, i64 2
  store i64 %height, $REF %number
  ret $REF %node
}

; ANCHOR: sum
define hidden i64 @sum(i64 %g, $REF %node) #0 gc "statepoint-example" {
entry:
  $CHECK
  %is.none = icmp eq $REF %node, null
  br i1 %is.none, label %none, label %some
none:
  ret i64 0
some:
  %left = call $REF @load($REF %node, i64 0)
  %left.sum = call i64 @sum(i64 %g, $REF %left)
  %right = call $REF @load($REF %node, i64 1)
  %right.sum = call i64 @sum(i64 %g, $REF %right)
  %number = getelementptr i64, $REF %node, i64 2
  %own = load i64, $REF %number
  %both = add i64 %left.sum, %right.sum
  %all = add i64 %both, %own
  ret i64 %all
}
; ANCHOR_END: sum

; Eleven arguments, five of them pushed, two of those references.
define hidden i64 @wide(i64 %g, i64 %a, i64 %b, i64 %c, i64 %d, i64 %e, i64 %f, i64 %h, $REF %x, $REF %y, i64 %index)
    #0 gc "statepoint-example" {
entry:
  $CHECK
  %at = getelementptr i64, $REF %y, i64 %index
  %garbage = call $REF @build(i64 %g, i64 2)
  %ab = add i64 %a, %b
  %cd = add i64 %c, %d
  %ef = add i64 %e, %f
  %abcd = add i64 %ab, %cd
  %efh = add i64 %ef, %h
  %numbers = add i64 %abcd, %efh
  %x.sum = call i64 @sum(i64 %g, $REF %x)
  %height = load i64, $REF %at
  %some = add i64 %numbers, %x.sum
  %all = add i64 %some, %height
  ret i64 %all
}

; 2 * (28 + 11 + 2)
define hidden i64 @widely(i64 %g) #0 gc "statepoint-example" {
entry:
  $CHECK
  %x = call $REF @build(i64 %g, i64 3)
  %y = call $REF @build(i64 %g, i64 2)
  %one = call i64 @wide(i64 %g, i64 1, i64 2, i64 3, i64 4, i64 5, i64 6, i64 7, $REF %x, $REF %y, i64 2)
  %two = call i64 @wide(i64 %g, i64 7, i64 6, i64 5, i64 4, i64 3, i64 2, i64 1, $REF %x, $REF %y, i64 2)
  %both = add i64 %one, %two
  ret i64 %both
}

; References change their places in each turn, and live across several calls in each: n / 2 * 5 + n + 15, n even.
define hidden i64 @chain(i64 %g, i64 %n) #0 gc "statepoint-example" {
entry:
  $CHECK
  %a = call $REF @build(i64 %g, i64 2)
  %b = call $REF @build(i64 %g, i64 3)
  br label %loop
loop:
  %p = phi $REF [ %a, %go.0 ], [ %q, %turn ]
  %q = phi $REF [ %b, %go.0 ], [ %p, %turn ]
  %i = phi i64 [ 0, %go.0 ], [ %next, %turn ]
  %total = phi i64 [ 0, %go.0 ], [ %more, %turn ]
  $POLL
  %done = icmp eq i64 %i, %n
  br i1 %done, label %out, label %turn
turn:
  %at = getelementptr i64, $REF %p, i64 2
  %garbage = call $REF @build(i64 %g, i64 1)
  %height = load i64, $REF %at
  %y = call $REF @build(i64 %g, i64 1)
  %y.sum = call i64 @sum(i64 %g, $REF %y)
  %some = add i64 %total, %height
  %more = add i64 %some, %y.sum
  %next = add i64 %i, 1
  br label %loop
out:
  %p.sum = call i64 @sum(i64 %g, $REF %p)
  %q.sum = call i64 @sum(i64 %g, $REF %q)
  %sums = add i64 %p.sum, %q.sum
  %result = add i64 %total, %sums
  ret i64 %result
}

; A loop without calls but its poll: 2 * n + 4.
define hidden i64 @polls(i64 %g, i64 %n) #0 gc "statepoint-example" {
entry:
  $CHECK
  %a = call $REF @build(i64 %g, i64 2)
  %at = getelementptr i64, $REF %a, i64 2
  br label %loop
loop:
  %i = phi i64 [ 0, %go.0 ], [ %next, %go.1 ]
  %total = phi i64 [ 0, %go.0 ], [ %more, %go.1 ]
  $POLL
  %height = load i64, $REF %at
  %more = add i64 %total, %height
  %next = add i64 %i, 1
  %done = icmp eq i64 %next, %n
  br i1 %done, label %out, label %loop
out:
  %sum = call i64 @sum(i64 %g, $REF %a)
  %result = add i64 %more, %sum
  ret i64 %result
}

; Makes enough garbage that memory freed meanwhile is used again.
define hidden void @churn(i64 %g) #0 gc "statepoint-example" {
entry:
  $CHECK
  %n = load i64, $P64 @rounds
  br label %loop
loop:
  %i = phi i64 [ %n, %go.0 ], [ %next, %loop ]
  %garbage = call $REF @build(i64 %g, i64 6)
  %next = sub i64 %i, 1
  %done = icmp eq i64 %next, 0
  br i1 %done, label %out, label %loop
out:
  ret void
}

; ANCHOR: slots
; Two references are in allocas alone. Of a third only a pointer derived from it is used: its base is live for the
; collector alone. (LLVM's own rewriting always names a base by itself, too.) 2 + 11 + 1.
define hidden i64 @slots(i64 %g) #0 gc "statepoint-example" {
entry:
  %s = alloca $REF
  %t = alloca $REF
  $CHECK
  %a = call $REF @build(i64 %g, i64 2)
  %b = call $REF @build(i64 %g, i64 3)
  %c = call $REF @build(i64 %g, i64 1)
  store $REF %b, $CELL %s
  store $REF %c, $CELL %t
  %at = getelementptr i64, $REF %a, i64 2
  %token = call token (i64, i32, $FCHURN, i32, i32, ...) $STATEPOINT(i64 7, i32 0, $FCHURN elementtype(void (i64)) @churn, i32 1, i32 0, i64 %g, i32 0, i32 0) ["gc-live"($REF %a, $REF %at, $CELL %s, $CELL %t)]
  %at.now = call $REF $RELOCATE(token %token, i32 0, i32 1)
  %height = load i64, $REF %at.now
  %b.now = load $REF, $CELL %s
  %c.now = load $REF, $CELL %t
  %b.sum = call i64 @sum(i64 %g, $REF %b.now)
  %c.sum = call i64 @sum(i64 %g, $REF %c.now)
  %both = add i64 %b.sum, %c.sum
  %z = add i64 %both, %height
  ret i64 %z
}
; ANCHOR_END: slots

; Recurses with a reference in every frame, then throws. The arguments are more than the registers take.
define hidden i64 @sink(i64 %g, i64 %depth, i64 %a, i64 %b, i64 %c, i64 %d, i64 %e, $REF %older) #0 gc "statepoint-example" {
entry:
  $CHECK
  %own = call $REF @build(i64 %g, i64 1)
  %last = icmp eq i64 %depth, 0
  br i1 %last, label %bottom, label %more
bottom:
  %never = call i64 @native(i64 5, i64 0)
  br label %more
more:
  %less = sub i64 %depth, 1
  %rest = call i64 @sink(i64 %g, i64 %less, i64 1, i64 2, i64 3, i64 4, i64 5, $REF %own)
  %own.sum = call i64 @sum(i64 %g, $REF %own)
  %older.sum = call i64 @sum(i64 %g, $REF %older)
  %sums = add i64 %own.sum, %older.sum
  %all = add i64 %rest, %sums
  ret i64 %all
}

; References live into two landing pads, the second call from behind the first pad: 11 + 3 + 11 + 3 + 1.
define hidden i64 @catches(i64 %g, i64 %depth) #0 gc "statepoint-example" personality $PERSONALITY {
entry:
  $CHECK
  %a = call $REF @build(i64 %g, i64 3)
  %b = call $REF @build(i64 %g, i64 1)
  %at = getelementptr i64, $REF %a, i64 2
  %x = invoke i64 @sink(i64 %g, i64 %depth, i64 1, i64 2, i64 3, i64 4, i64 5, $REF %b) to label %wrong unwind label %first
first:
  %first.pad = landingpad token catch $P8 null
  %one = call i64 @native(i64 6, i64 0)
  %first.sum = call i64 @sum(i64 %g, $REF %a)
  %first.height = load i64, $REF %at
  %y = invoke i64 @sink(i64 %g, i64 %depth, i64 1, i64 2, i64 3, i64 4, i64 5, $REF %a) to label %wrong unwind label %second
second:
  %second.pad = landingpad token catch $P8 null
  %two = call i64 @native(i64 6, i64 0)
  %second.sum = call i64 @sum(i64 %g, $REF %a)
  %second.height = load i64, $REF %at
  %b.sum = call i64 @sum(i64 %g, $REF %b)
  %p = add i64 %first.sum, %first.height
  %q = add i64 %second.sum, %second.height
  %r = add i64 %p, %q
  %s = add i64 %r, %b.sum
  ret i64 %s
wrong:
  ret i64 0
}

; The argument points to n, the depth of the recursion, and room for five results.
define i64 @entry(i64 %g, i64 %argument) #0 gc "statepoint-example" {
entry:
  $CHECK
  %n.at = inttoptr i64 %argument to $P64
  %n = load i64, $P64 %n.at
  store i64 %n, $P64 @rounds
  %depth.at = getelementptr i64, $P64 %n.at, i64 1
  %depth = load i64, $P64 %depth.at
  %r0 = call i64 @widely(i64 %g)
  %at0 = getelementptr i64, $P64 %n.at, i64 2
  store i64 %r0, $P64 %at0
  %r1 = call i64 @chain(i64 %g, i64 %n)
  %at1 = getelementptr i64, $P64 %n.at, i64 3
  store i64 %r1, $P64 %at1
  %r2 = call i64 @polls(i64 %g, i64 %n)
  %at2 = getelementptr i64, $P64 %n.at, i64 4
  store i64 %r2, $P64 %at2
  %r3 = call i64 @slots(i64 %g)
  %at3 = getelementptr i64, $P64 %n.at, i64 5
  store i64 %r3, $P64 %at3
  %r4 = call i64 @catches(i64 %g, i64 %depth)
  %at4 = getelementptr i64, $P64 %n.at, i64 6
  store i64 %r4, $P64 %at4
  ret i64 0
}

attributes #0 = { noinline uwtable }

!0 = !{!"$SP"}
