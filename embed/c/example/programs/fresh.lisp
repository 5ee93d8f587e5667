; New objects that refer to older ones, while another goroutine collects all the time: the newest
; may be marked already when the stack is scanned, and alone keeps the others.
(define done #f)
(define collected (make-channel))
(define rounds (if argument argument 40))

(go (lambda ()
      (while (not done) (collect))
      (send collected 'yes)))

(define (length list)
  (let loop ((n 0) (rest list))
    (if (null? rest) n (loop (+ n 1) (cdr rest)))))

(define (tick) nil)

(define (chain n)
  (let ((x nil) (i 0))
    (while (< i n)
      (set! x (cons i x))
      (tick)
      (set! i (+ i 1)))
    x))

(define lost 0)
(while (< (cycles) rounds)
  (if (not (= (length (chain 300)) 300)) (set! lost (+ lost 1))))
(set! done #t)
(display (list 'lost lost 'collected (receive collected)))
(newline)
