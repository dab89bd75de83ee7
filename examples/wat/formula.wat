;; A formula, compiled when wizer runs.
;;
;; The source text of the formula is a data segment, in postfix notation. The
;; initialization function reads it once and turns it into a row of steps in the
;; memory: which function to call, and for a number also which. `run` then only
;; walks along the row. What wizer leaves in the module is the compiled formula:
;; the text is gone, and the reader's work with it.

(module
  (type $step (func))

  (memory (export "memory") 1)

  ;; From 0 on, the source text; a zero byte follows it. This is the polynomial
  ;; 2x³ - 5x² + 3x + 7, by Horner's rule.
  (data (i32.const 0) "2 x * 5 - x * 3 + x * 7 +")

  ;; From 1024 on, the steps, 16 bytes each: the function's place in the table,
  ;; and from the eighth byte on the number. From 4096 on, the operands.
  (global $program i32 (i32.const 1024))
  (global $operands i32 (i32.const 4096))

  ;; The functions that a step can call. There is none at 0, where a module that
  ;; was not initialized would look.
  (table 6 funcref)
  (elem (i32.const 1) $number $argument $add $subtract $multiply)

  (global $end (mut i32) (i32.const 1024))      ;; where the next step goes
  (global $at (mut i32) (i32.const 0))          ;; the step that is running
  (global $top (mut i32) (i32.const 0))         ;; where the next operand goes
  (global $x (mut f64) (f64.const 0))           ;; the argument of the formula
  (global $characters (mut i32) (i32.const 0))  ;; how many were read so far

  ;; ----- the operand stack -----

  (func $push (param $value f64)
    (f64.store (global.get $top) (local.get $value))
    (global.set $top (i32.add (global.get $top) (i32.const 8))))

  (func $pop (result f64)
    (global.set $top (i32.sub (global.get $top) (i32.const 8)))
    (f64.load (global.get $top)))

  ;; ----- the steps -----

  (func $number
    (call $push (f64.load offset=8 (global.get $at))))

  (func $argument
    (call $push (global.get $x)))

  (func $add
    (call $push (f64.add (call $pop) (call $pop))))

  (func $subtract
    (call $push (f64.add (f64.neg (call $pop)) (call $pop))))

  (func $multiply
    (call $push (f64.mul (call $pop) (call $pop))))

  ;; ----- the compiler -----

  (func $emit (param $function i32) (param $value f64)
    (i32.store (global.get $end) (local.get $function))
    (f64.store offset=8 (global.get $end) (local.get $value))
    (global.set $end (i32.add (global.get $end) (i32.const 16))))

  (func $is_digit (param $character i32) (result i32)
    (i32.lt_u (i32.sub (local.get $character) (i32.const 48)) (i32.const 10)))

  ;; Emits the step for the number that starts at $from, and gives the place
  ;; behind it.
  (func $compile_number (param $from i32) (result i32)
    (local $value f64)
    (loop $next
      (local.set $value
        (f64.add
          (f64.mul (local.get $value) (f64.const 10))
          (f64.convert_i32_u
            (i32.sub (i32.load8_u (local.get $from)) (i32.const 48)))))
      (local.set $from (i32.add (local.get $from) (i32.const 1)))
      (br_if $next (call $is_digit (i32.load8_u (local.get $from)))))
    (call $emit (i32.const 1) (local.get $value))
    (local.get $from))

  ;; The function that an operator or the letter x stands for.
  (func $function_for (param $character i32) (result i32)
    (if (i32.eq (local.get $character) (i32.const 120)) ;; x
      (then (return (i32.const 2))))
    (if (i32.eq (local.get $character) (i32.const 43)) ;; +
      (then (return (i32.const 3))))
    (if (i32.eq (local.get $character) (i32.const 45)) ;; -
      (then (return (i32.const 4))))
    (if (i32.eq (local.get $character) (i32.const 42)) ;; *
      (then (return (i32.const 5))))
    ;; A mistake in the formula is an error when wizer runs.
    (unreachable))

  (func (export "wizer.initialize")
    (local $from i32)
    (local $character i32)
    (block $done
      (loop $next
        (local.set $character (i32.load8_u (local.get $from)))
        (br_if $done (i32.eqz (local.get $character)))
        (if (call $is_digit (local.get $character))
          (then (local.set $from (call $compile_number (local.get $from))))
          (else
            (local.set $from (i32.add (local.get $from) (i32.const 1)))
            (if (i32.ne (local.get $character) (i32.const 32))
              (then
                (call $emit
                  (call $function_for (local.get $character))
                  (f64.const 0))))))
        (br $next)))

    (global.set $characters
      (i32.add (global.get $characters) (local.get $from)))

    ;; Nobody needs the text any more; zero bytes need no room in a module.
    (loop $next
      (local.set $from (i32.sub (local.get $from) (i32.const 1)))
      (i32.store8 (local.get $from) (i32.const 0))
      (br_if $next (local.get $from))))

  ;; ----- the compiled formula -----

  (func (export "run") (param $value f64) (result f64)
    (global.set $x (local.get $value))
    (global.set $top (global.get $operands))
    (global.set $at (global.get $program))
    (loop $next
      (call_indirect (type $step) (i32.load (global.get $at)))
      (global.set $at (i32.add (global.get $at) (i32.const 16)))
      (br_if $next (i32.lt_u (global.get $at) (global.get $end))))
    (call $pop))

  ;; How many steps the formula has, and how many characters were read for it.
  (func (export "steps") (result i32)
    (i32.div_u (i32.sub (global.get $end) (global.get $program)) (i32.const 16)))
  (func (export "characters_read") (result i32) (global.get $characters)))
