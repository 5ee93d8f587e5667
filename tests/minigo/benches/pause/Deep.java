// A thread with a deep stack runs a loop that calls a few frames deep and reads the clock, while the main thread collects.
// Prints, for each collection, the longest time in nanoseconds between two readings.
public class Deep {
    static final class Box { final long v; Box(long v) { this.v = v; } }
    static final int TOP = 16;
    static final Box[] POOL = new Box[1024];
    static volatile long longest;
    static volatile boolean stop, bottom;

    static long rec(int d) {
        Box o = POOL[d & 1023];
        long r = 0;
        if (d == TOP) r = spin();
        else if (d > 0) r = rec(d - 1);
        return r + o.v;
    }

    static long spin() {
        bottom = true;
        long sum = 0, last = System.nanoTime();
        while (!stop) {
            sum += rec(TOP - 1);
            long t = System.nanoTime();
            if (t - last > longest) longest = t - last;
            last = t;
        }
        return sum;
    }

    public static void main(String[] a) throws Exception {
        int depth = Integer.parseInt(a[0]), collections = Integer.parseInt(a[1]);
        for (int i = 0; i < 1024; i++) POOL[i] = new Box(i);
        // Compiled before it counts.
        stop = true;
        for (int i = 0; i < 20000; i++) rec(64);
        stop = bottom = false;
        Thread t = new Thread(null, () -> rec(depth), "deep", 1023L << 20);
        t.start();
        while (!bottom) Thread.sleep(1);
        for (int i = 0; i < 3; i++) { System.gc(); Thread.sleep(5); }
        for (int i = 0; i < collections; i++) {
            longest = 0;
            long begun = System.nanoTime();
            System.gc();
            // As in deep.go.
            while (System.nanoTime() - begun < 25000000) { }
            System.out.println("gap " + longest);
        }
        stop = true;
        t.join();
    }
}
