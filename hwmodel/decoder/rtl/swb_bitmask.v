// Decoder of one bitmask chunk: a mask of `elements` bits, then a value for each set bit.
//
// In the clock of `start` the form of the chunk is taken over. In each clock after it up to WIDTH values
// are placed; a word of WORD_BITS mask bits takes max(1, ceil(ones / WIDTH)) clocks. `done` is high in
// the last of them. Window a is the mask, window b the values; both are there when asked for.
module swb_bitmask #(
    parameter VALUE_BITS = 8,
    parameter WIDTH = 1,
    parameter WORD_BITS = 32,
    parameter WINDOW = 128   // at least WORD_BITS and WIDTH * VALUE_BITS
) (
    input  wire                        clk,
    input  wire                        reset,
    input  wire                        start,
    input  wire [31:0]                 elements,
    output wire [31:0]                 place_a,
    input  wire [WINDOW-1:0]           window_a,
    output wire [31:0]                 place_b,
    input  wire [WINDOW-1:0]           window_b,
    output reg  [WIDTH-1:0]            valid,
    output reg  [32*WIDTH-1:0]         position,
    output reg  [VALUE_BITS*WIDTH-1:0] value,
    output wire                        done
);
    reg running, started;                // started: some of the word's ones are placed already
    reg [31:0] first, count, values_at;  // the word's first element; elements; next value
    reg [WORD_BITS-1:0] left;            // of a word that has been started

    wire [31:0] behind = count - first;
    wire [WORD_BITS-1:0] whole =
        behind < WORD_BITS ? ~({WORD_BITS{1'b1}} << behind) : {WORD_BITS{1'b1}};
    wire [WORD_BITS-1:0] word = started ? left : window_a[WORD_BITS-1:0] & whole;

    // the WIDTH lowest ones, by taking the lowest off again and again
    reg [WORD_BITS-1:0] rest, lowest;
    reg [31:0] placed;
    integer lane, b;
    always @* begin
        rest = word;
        placed = 0;
        valid = 0;
        position = 0;
        value = 0;
        lowest = 0;
        for (lane = 0; lane < WIDTH; lane = lane + 1) begin
            lowest = rest & (~rest + 1'b1);
            valid[lane] = running && rest != 0;
            for (b = 0; b < WORD_BITS; b = b + 1)
                if (lowest[b])
                    position[32*lane +: 32] = first + b;
            value[VALUE_BITS*lane +: VALUE_BITS] = window_b[VALUE_BITS*lane +: VALUE_BITS];
            if (rest != 0)
                placed = placed + 1;
            rest = rest & ~lowest;
        end
    end

    wire last_word = behind <= WORD_BITS;
    assign place_a = first;
    assign place_b = values_at;
    assign done = running ? rest == 0 && last_word : start && elements == 0;

    always @(posedge clk) begin
        if (reset) begin
            running <= 0;
        end else if (!running) begin
            running <= start && elements != 0;
            started <= 0;
            first <= 0;
            count <= elements;
            values_at <= elements;
        end else begin
            values_at <= values_at + placed * VALUE_BITS;
            started <= rest != 0;
            left <= rest;
            if (rest == 0) begin
                first <= first + WORD_BITS;
                running <= !last_word;
            end
        end
    end
endmodule
