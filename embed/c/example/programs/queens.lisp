; All ways to place n queens, with lists.
(define (safe? queen distance placed)
  (cond ((null? placed) #t)
        ((= (car placed) queen) #f)
        ((= (car placed) (+ queen distance)) #f)
        ((= (car placed) (- queen distance)) #f)
        (else (safe? queen (+ distance 1) (cdr placed)))))

(define (queens n)
  (let place ((row 0) (placed nil))
    (if (= row n)
        1
        (let next ((queen 0) (found 0))
          (if (= queen n)
              found
              (next (+ queen 1)
                    (if (safe? queen 1 placed)
                        (+ found (place (+ row 1) (cons queen placed)))
                        found)))))))

(let loop ((n 4))
  (if (<= n 8)
      (begin
        (display (list n (queens n)))
        (newline)
        (loop (+ n 1)))))
