; A program whose references live across calls, in recursions, and as derived pointers in a loop. REF stands for a
; pointer to an object: words, each a reference or a number.
;
; Functions are hidden, so that none is taken for one of the C library.
;
; The host fills the table: call_system, poll, new(words), shade(reference), the address of the write barrier's flag.

@host = global [5 x i64] zeroinitializer

define hidden i64 @native(i64 %which, i64 %a) #0 gc "statepoint-example" {
  %call.at = load volatile i64, i64* getelementptr inbounds ([5 x i64], [5 x i64]* @host, i64 0, i64 0)
  %call = inttoptr i64 %call.at to i64 (i64, i64, i64)*
  %f.at = getelementptr inbounds [5 x i64], [5 x i64]* @host, i64 0, i64 %which
  %f = load volatile i64, i64* %f.at
  %result = call i64 %call(i64 %f, i64 %a, i64 0)
  ret i64 %result
}

define hidden void @poll() #0 gc "statepoint-example" {
  %none = call i64 @native(i64 1, i64 0)
  ret void
}

define hidden REF @new(i64 %words) #0 gc "statepoint-example" {
  call void @poll()
  %call.at = load volatile i64, i64* getelementptr inbounds ([5 x i64], [5 x i64]* @host, i64 0, i64 0)
  %call = inttoptr i64 %call.at to REF (i64, i64, i64)*
  %f = load volatile i64, i64* getelementptr inbounds ([5 x i64], [5 x i64]* @host, i64 0, i64 2)
  %object = call REF %call(i64 %f, i64 %words, i64 0)
  ret REF %object
}

; Stores a reference into an object. The place is a derived pointer, live across the call of the write barrier.
define hidden void @store(REF %object, i64 %index, REF %value) #0 gc "statepoint-example" {
entry:
  %slot = getelementptr i64, REF %object, i64 %index
  %place = bitcast REF %slot to REF addrspace(1)*
  %flag.at = load volatile i64, i64* getelementptr inbounds ([5 x i64], [5 x i64]* @host, i64 0, i64 4)
  %flag.pointer = inttoptr i64 %flag.at to i8*
  %flag = load volatile i8, i8* %flag.pointer
  %off = icmp eq i8 %flag, 0
  br i1 %off, label %write, label %report
report:
  %word = ptrtoint REF %value to i64
  %none = call i64 @native(i64 3, i64 %word)
  br label %write
write:
  store REF %value, REF addrspace(1)* %place
  ret void
}

define hidden REF @load(REF %object, i64 %index) #0 gc "statepoint-example" {
  %slot = getelementptr i64, REF %object, i64 %index
  %place = bitcast REF %slot to REF addrspace(1)*
  %value = load REF, REF addrspace(1)* %place
  ret REF %value
}

; A tree, every node with its height in it.
define hidden REF @build(i64 %height) #0 gc "statepoint-example" {
entry:
  call void @poll()
  %is.leaf = icmp eq i64 %height, 0
  br i1 %is.leaf, label %leaf, label %inner
leaf:
  ret REF null
inner:
  %less = sub i64 %height, 1
  %left = call REF @build(i64 %less)
  %right = call REF @build(i64 %less)
  %node = call REF @new(i64 3)
  call void @store(REF %node, i64 0, REF %left)
  call void @store(REF %node, i64 1, REF %right)
  %number = getelementptr i64, REF %node, i64 2
  store i64 %height, REF %number
  ret REF %node
}

define hidden i64 @sum(REF %node) #0 gc "statepoint-example" {
entry:
  call void @poll()
  %is.none = icmp eq REF %node, null
  br i1 %is.none, label %none, label %some
none:
  ret i64 0
some:
  %left = call REF @load(REF %node, i64 0)
  %left.sum = call i64 @sum(REF %left)
  %right = call REF @load(REF %node, i64 1)
  %right.sum = call i64 @sum(REF %right)
  %number = getelementptr i64, REF %node, i64 2
  %own = load i64, REF %number
  %both = add i64 %left.sum, %right.sum
  %all = add i64 %both, %own
  ret i64 %all
}

; Adds up the trees of an array. Only derived pointers are used in the loop: their bases are live for the collector alone.
define hidden i64 @sum.all(REF %array, i64 %length) #0 gc "statepoint-example" {
entry:
  %end = getelementptr i64, REF %array, i64 %length
  br label %loop
loop:
  %at = phi REF [ %array, %entry ], [ %next, %body ]
  %total = phi i64 [ 0, %entry ], [ %more, %body ]
  %done = icmp eq REF %at, %end
  br i1 %done, label %out, label %body
body:
  %garbage = call REF @build(i64 2)
  %place = bitcast REF %at to REF addrspace(1)*
  %tree = load REF, REF addrspace(1)* %place
  %tree.sum = call i64 @sum(REF %tree)
  %more = add i64 %total, %tree.sum
  %next = getelementptr i64, REF %at, i64 1
  br label %loop
out:
  ret i64 %total
}

; Recurses deeply with a reference in every frame, a different one in each.
define hidden i64 @deep(i64 %depth, REF %younger) #0 gc "statepoint-example" {
entry:
  call void @poll()
  %is.last = icmp eq i64 %depth, 0
  br i1 %is.last, label %last, label %more
last:
  %trees = call i64 @sum(REF %younger)
  ret i64 %trees
more:
  %own = call REF @build(i64 1)
  %less = sub i64 %depth, 1
  %rest = call i64 @deep(i64 %less, REF %younger)
  %own.sum = call i64 @sum(REF %own)
  %result = add i64 %rest, %own.sum
  ret i64 %result
}

; The argument points to: number of trees, their height, depth of the recursion, result.
define i64 @entry(i64 %goroutine, i64 %argument) #0 gc "statepoint-example" {
entry:
  %p = inttoptr i64 %argument to i64*
  %count = load i64, i64* %p
  %height.at = getelementptr i64, i64* %p, i64 1
  %height = load i64, i64* %height.at
  %depth.at = getelementptr i64, i64* %p, i64 2
  %depth = load i64, i64* %depth.at
  %array = call REF @new(i64 %count)
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %tree = call REF @build(i64 %height)
  call void @store(REF %array, i64 %i, REF %tree)
  %next = add i64 %i, 1
  %done = icmp eq i64 %next, %count
  br i1 %done, label %after, label %loop
after:
  %first = call REF @load(REF %array, i64 0)
  %recursion = call i64 @deep(i64 %depth, REF %first)
  %trees = call i64 @sum.all(REF %array, i64 %count)
  %result = add i64 %recursion, %trees
  %result.at = getelementptr i64, i64* %p, i64 3
  store i64 %result, i64* %result.at
  ret i64 0
}

attributes #0 = { noinline uwtable }
