// Go refuses this.
package main

func other() {}
