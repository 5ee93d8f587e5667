; Two goroutines and two channels: each message is a new list, which the other one takes apart.
(define rounds (if argument argument 20000))
(define ping (make-channel))
(define pong (make-channel))

(define (sum list) (if (null? list) 0 (+ (car list) (sum (cdr list)))))

(define (player from to)
  (let loop ()
    (let ((message (receive from)))
      (send to (+ (sum message) 1))
      (loop))))

(go (lambda () (player ping pong)))

(define total 0)
(define round 0)
(while (< round rounds)
  (send ping (list round 1 2 3))
  (set! total (+ total (receive pong)))
  (set! round (+ round 1)))
(display (list 'rounds rounds 'total total))
(newline)
