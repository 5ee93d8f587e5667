; A longer program: a Lisp in this Lisp, sorting, a prime sieve of goroutines, symbolic derivatives,
; matrices, bank accounts of closures, a search tree, and a pool of workers.

; ---------------------------------------------------------------------------------- Lists

(define (cadr x) (car (cdr x)))
(define (caddr x) (car (cdr (cdr x))))
(define (cadddr x) (car (cdr (cdr (cdr x)))))
(define (cddr x) (cdr (cdr x)))

(define (say what value)
  (display what)
  (display ": ")
  (display value)
  (newline))

(define (map f list)
  (if (null? list)
      nil
      (cons (f (car list)) (map f (cdr list)))))

(define (filter keep? list)
  (cond ((null? list) nil)
        ((keep? (car list)) (cons (car list) (filter keep? (cdr list))))
        (else (filter keep? (cdr list)))))

(define (fold f start list)
  (if (null? list)
      start
      (fold f (f start (car list)) (cdr list))))

(define (append a b)
  (if (null? a)
      b
      (cons (car a) (append (cdr a) b))))

(define (reverse list)
  (fold (lambda (done x) (cons x done)) nil list))

(define (length list)
  (fold (lambda (n x) (+ n 1)) 0 list))

(define (range from to)
  (if (>= from to)
      nil
      (cons from (range (+ from 1) to))))

(define (assoc key pairs)
  (cond ((null? pairs) #f)
        ((eq? (car (car pairs)) key) (car pairs))
        (else (assoc key (cdr pairs)))))

(define (equal? a b)
  (cond ((eq? a b) #t)
        ((and (pair? a) (pair? b))
         (and (equal? (car a) (car b)) (equal? (cdr a) (cdr b))))
        (else #f)))

(define (sum list) (fold (lambda (a b) (+ a b)) 0 list))

(say 'squares (map (lambda (x) (* x x)) (range 0 10)))
(say 'even (filter (lambda (x) (= (remainder x 2) 0)) (range 0 20)))
(say 'sum (sum (range 0 1000)))
(say 'reverse (reverse '(a b (c d) "text" 5)))
(say 'equal (list (equal? '(1 (2 3)) '(1 (2 3))) (equal? '(1 2) '(1 3))))

; ---------------------------------------------------------------------------------- Sorting

(define seed 42)
(define (random limit)
  (set! seed (remainder (* seed 16807) 2147483647))
  (remainder (quotient seed 8) limit))

(define (random-list n)
  (if (= n 0)
      nil
      (let ((first (random 1000)))
        (cons first (random-list (- n 1))))))

(define (merge a b)
  (cond ((null? a) b)
        ((null? b) a)
        ((< (car b) (car a)) (cons (car b) (merge a (cdr b))))
        (else (cons (car a) (merge (cdr a) b)))))

(define (split list)
  (if (or (null? list) (null? (cdr list)))
      (cons list nil)
      (let ((rest (split (cddr list))))
        (cons (cons (car list) (car rest))
              (cons (cadr list) (cdr rest))))))

(define (sort list)
  (if (or (null? list) (null? (cdr list)))
      list
      (let ((halves (split list)))
        (merge (sort (car halves)) (sort (cdr halves))))))

(define (sorted? list)
  (or (null? list)
      (null? (cdr list))
      (and (<= (car list) (cadr list)) (sorted? (cdr list)))))

(say 'sort (sort '(3 1 4 1 5 9 2 6 5 3 5 8 9 7 9)))
(let ((numbers (random-list 500)))
  (say 'sorted (list (sorted? numbers) (sorted? (sort numbers))
                     (= (sum numbers) (sum (sort numbers))))))

; The same in place, on a vector.
(define (fill vector list)
  (let loop ((i 0) (rest list))
    (if (null? rest)
        vector
        (begin
          (vector-set! vector i (car rest))
          (loop (+ i 1) (cdr rest))))))

(define (swap vector i k)
  (let ((old (vector-ref vector i)))
    (vector-set! vector i (vector-ref vector k))
    (vector-set! vector k old)))

(define (quicksort vector from to)
  (if (< from to)
      (let ((pivot (vector-ref vector to)) (store from) (i from))
        (while (< i to)
          (if (< (vector-ref vector i) pivot)
              (begin
                (swap vector i store)
                (set! store (+ store 1))))
          (set! i (+ i 1)))
        (swap vector store to)
        (quicksort vector from (- store 1))
        (quicksort vector (+ store 1) to)))
  vector)

(say 'quicksort (quicksort (fill (make-vector 12 0) (random-list 12)) 0 11))

; ---------------------------------------------------------------------------------- Goroutines

; Each prime has a goroutine that lets pass what it does not divide.
(define (generator limit)
  (let ((out (make-channel)))
    (go (lambda ()
          (let loop ((n 2))
            (send out (if (< n limit) n #f))
            (if (< n limit) (loop (+ n 1))))))
    out))

(define (without prime in)
  (let ((out (make-channel)))
    (go (lambda ()
          (let loop ()
            (let ((n (receive in)))
              (if (or (not n) (not (= (remainder n prime) 0)))
                  (send out n))
              (if n (loop))))))
    out))

(define (primes limit)
  (let loop ((in (generator limit)))
    (let ((prime (receive in)))
      (if prime
          (cons prime (loop (without prime in)))
          nil))))

(say 'primes (primes 100))

; Workers take tasks from one channel and answer on another.
(define (parallel-sum workers tasks)
  (let ((work (make-channel)) (done (make-channel)) (started 0))
    (while (< started workers)
      (go (lambda ()
            (let loop ()
              (let ((task (receive work)))
                (if task
                    (begin
                      (send done (sum (range 0 task)))
                      (loop)))))))
      (set! started (+ started 1)))
    (go (lambda ()
          (let loop ((n 1))
            (if (<= n tasks)
                (begin (send work n) (loop (+ n 1)))))
          (let loop ((n 0))
            (if (< n workers)
                (begin (send work #f) (loop (+ n 1)))))))
    (let loop ((n 0) (total 0))
      (if (< n tasks)
          (let ((part (receive done)))
            (loop (+ n 1) (+ total part)))
          total))))

(say 'workers (parallel-sum 4 60))

; ---------------------------------------------------------------------------------- Closures

(define (account balance)
  (lambda (message amount)
    (cond ((eq? message 'deposit) (set! balance (+ balance amount)) balance)
          ((eq? message 'withdraw)
           (if (< balance amount)
               'insufficient
               (begin (set! balance (- balance amount)) balance)))
          (else balance))))

(let ((mine (account 100)) (yours (account 10)))
  (mine 'deposit 50)
  (say 'accounts (list (mine 'withdraw 120) (yours 'withdraw 11) (yours 'deposit 5)
                       (mine 'balance 0))))

(define (counter)
  (let ((n 0))
    (define (next) (set! n (+ n 1)) n)
    next))

(let ((a (counter)) (b (counter)))
  (a)
  (a)
  (b)
  (say 'counters (list (a) (b))))

; ---------------------------------------------------------------------------------- A search tree

(define (insert tree key)
  (cond ((null? tree) (list key nil nil))
        ((< key (car tree)) (list (car tree) (insert (cadr tree) key) (caddr tree)))
        ((< (car tree) key) (list (car tree) (cadr tree) (insert (caddr tree) key)))
        (else tree)))

(define (in-order tree)
  (if (null? tree)
      nil
      (append (in-order (cadr tree)) (cons (car tree) (in-order (caddr tree))))))

(define (depth tree)
  (if (null? tree)
      0
      (let ((left (depth (cadr tree))) (right (depth (caddr tree))))
        (+ 1 (if (< left right) right left)))))

(let ((tree (fold insert nil (random-list 200))))
  (say 'tree (list (sorted? (in-order tree)) (length (in-order tree)) (depth tree))))

; ---------------------------------------------------------------------------------- Derivatives

(define (plus a b)
  (cond ((and (number? a) (number? b)) (+ a b))
        ((eq? a 0) b)
        ((eq? b 0) a)
        (else (list '+ a b))))

(define (times a b)
  (cond ((and (number? a) (number? b)) (* a b))
        ((or (eq? a 0) (eq? b 0)) 0)
        ((eq? a 1) b)
        ((eq? b 1) a)
        (else (list '* a b))))

(define (derivative e x)
  (cond ((number? e) 0)
        ((symbol? e) (if (eq? e x) 1 0))
        ((eq? (car e) '+) (plus (derivative (cadr e) x) (derivative (caddr e) x)))
        ((eq? (car e) '*)
         (plus (times (cadr e) (derivative (caddr e) x))
               (times (derivative (cadr e) x) (caddr e))))
        (else 'unknown)))

(say 'derivative (derivative '(+ (* a (* x x)) (+ (* b x) c)) 'x))
(say 'derivative (derivative '(* (+ x 3) (+ y 5)) 'x))

; ---------------------------------------------------------------------------------- Matrices

(define (matrix n f)
  (let ((rows (make-vector n 0)) (i 0))
    (while (< i n)
      (let ((row (make-vector n 0)) (k 0) (i i))
        (while (< k n)
          (vector-set! row k (f i k))
          (set! k (+ k 1)))
        (vector-set! rows i row))
      (set! i (+ i 1)))
    rows))

(define (at matrix i k) (vector-ref (vector-ref matrix i) k))

(define (product a b)
  (let ((n (vector-length a)))
    (matrix n (lambda (i k)
                (let loop ((j 0) (total 0))
                  (if (= j n)
                      total
                      (loop (+ j 1) (+ total (* (at a i j) (at b j k))))))))))

(define fibonacci (matrix 2 (lambda (i k) (if (= (+ i k) 2) 0 1))))
(define (power m n)
  (cond ((= n 1) m)
        ((= (remainder n 2) 0) (let ((half (power m (quotient n 2)))) (product half half)))
        (else (product m (power m (- n 1))))))

(say 'fibonacci (at (power fibonacci 80) 0 1))

; ---------------------------------------------------------------------------------- A Lisp

(define (evaluate e env)
  (cond ((number? e) e)
        ((symbol? e) (cdr (assoc e env)))
        ((eq? (car e) 'quote) (cadr e))
        ((eq? (car e) 'if)
         (evaluate (if (evaluate (cadr e) env) (caddr e) (cadddr e)) env))
        ((eq? (car e) 'lambda) (list 'closure (cadr e) (caddr e) env))
        ((eq? (car e) 'label)
         ; (label NAME LAMBDA): the function sees itself by a cell.
         (let ((cell (make-vector 1 0)))
           (vector-set! cell 0 (list 'closure (cadr (caddr e)) (caddr (caddr e))
                                     (cons (cons (cadr e) cell) env)))
           cell))
        (else (call (evaluate (car e) env)
                    (map (lambda (argument) (evaluate argument env)) (cdr e))))))

(define (bind names values env)
  (if (null? names)
      env
      (cons (cons (car names) (car values)) (bind (cdr names) (cdr values) env))))

(define (call f arguments)
  (cond ((not (pair? f))
         (if (eq? (vector? f) #t)
             (call (vector-ref f 0) arguments)
             (f arguments)))
        (else (evaluate (caddr f) (bind (cadr f) arguments (cadddr f))))))

(define (vector? f) (not (or (eq? f add) (eq? f sub) (eq? f less))))
(define (add arguments) (+ (car arguments) (cadr arguments)))
(define (sub arguments) (- (car arguments) (cadr arguments)))
(define (less arguments) (< (car arguments) (cadr arguments)))
(define base (list (cons 'add add) (cons 'sub sub) (cons 'less less)))

(say 'evaluate (evaluate '((lambda (x y) (add x (add y 1))) 20 21) base))
(say 'evaluate
     (evaluate '((label fib (lambda (n)
                   (if (less n 2) n (add (fib (sub n 1)) (fib (sub n 2))))))
                 (quote 13))
               base))

; The interpreter on several goroutines, each with a problem of its own.
(define (solve n)
  (let ((out (make-channel)))
    (go (lambda ()
          (send out (evaluate (list '(label fib (lambda (n)
                                      (if (less n 2) n (add (fib (sub n 1)) (fib (sub n 2))))))
                                    n)
                              base))))
    out))

(say 'goroutines (map (lambda (out) (receive out)) (map solve (range 0 12))))
(collect)
(say 'collected (> (cycles) 0))
