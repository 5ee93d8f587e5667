; A recursion a million frames deep, while another goroutine collects all the time.
(define depth (if argument argument 1000000))
(define done #f)
(define collected (make-channel))

(go (lambda ()
      (while (not done) (collect))
      (send collected 'yes)))

; Each frame holds a list of its own across the call.
(define (deep n)
  (if (= n 0)
      0
      (let ((mine (list n n)))
        (let ((below (deep (- n 1))))
          (if (and (= (car mine) n) (= (car (cdr mine)) n))
              (+ below 1)
              (begin (display 'lost) below))))))

(define (again times)
  (if (> times 0)
      (begin
        (display (deep depth))
        (newline)
        (again (- times 1)))))

(again 2)

; As often as it takes to have met some collections.
(define (until-collected)
  (if (< (cycles) 3)
      (begin
        (deep depth)
        (until-collected))))

(until-collected)
(set! done #t)
(display (list 'collected (receive collected)))
(newline)
