package main

// int rawFork(void);
// int forkAndCall(void);
// int forkInThread(void);
// int forkAndExit(void);
// int forkAndExec(void);
// int waitfor(int pid);
import "C"

import "fmt"

type T struct{ n *T }

//export goCalled
func goCalled(n C.int) C.int {
	var l *T
	for i := 0; i < 3000000; i++ {
		l = &T{l}
	}
	fmt.Println("child called")
	return n
}

func main() {
	pid := C.rawFork()
	if pid == 0 {
		fmt.Println("child went on")
		return
	}
	fmt.Println(C.waitfor(pid))
	fmt.Println(C.waitfor(C.forkAndCall()))
	fmt.Println(C.waitfor(C.forkInThread()))
	fmt.Println(C.waitfor(C.forkAndExit()))
	fmt.Println(C.waitfor(C.forkAndExec()))
}
